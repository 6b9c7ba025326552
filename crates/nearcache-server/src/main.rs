//! The binary `nearcache`: hands the command line to the library.

#![forbid(unsafe_code)]

/// Faster and tighter for many small values of changing sizes than the system's; in the binary only,
/// as a library must not choose for its users.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    nearcache_server::cli::main()
}
