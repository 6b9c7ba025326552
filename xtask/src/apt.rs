//! Debian packages: which are missing, and their installation without starting any service.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::job::{self, find_on_path};
use crate::workspace::Workspace;

/// A program, and the Debian package that brings it.
pub(crate) const PROGRAMS: [(&str, &str); 5] = [
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("curl", "curl"),
    ("python3", "python3"),
];

/// What the end-to-end tests make faults with, and the Debian package that brings it.
const FAULT_PROGRAMS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")];

/// Packages whose programs are not on the search path, each once.
pub(crate) fn missing_packages() -> Vec<&'static str> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .chain(&FAULT_PROGRAMS)
        .filter(|(program, _)| find_on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !python_can_make_environments() {
        packages.push("python3-venv");
    }
    if !has_clock_library() {
        packages.push("libfaketime");
    }
    if !has_postgresql() {
        packages.push("postgresql");
    }
    packages.dedup();
    packages
}

/// Whether libfaketime, which moves the wall clock of one process, lies where Debian puts it.
fn has_clock_library() -> bool {
    let folders = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    libraries.any(|path| path.is_file())
}

/// Whether there is a PostgreSQL server: where Debian puts it, by version, or on the search path.
pub(crate) fn has_postgresql() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let mut versions = versions.into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin/initdb").is_file())
        || find_on_path("initdb").is_some()
}

/// Debian splits what `python3 -m venv` needs into a package of its own.
fn python_can_make_environments() -> bool {
    job::output_of(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_some()
}

/// Why packages cannot be installed here, or `None` when they can.
pub(crate) fn cannot_install() -> Option<&'static str> {
    if find_on_path("apt-get").is_none() {
        return Some("there is no apt-get (not Debian)");
    }
    let is_root = job::output_of(Command::new("id").arg("-u")).as_deref() == Some("0");
    (!is_root).then_some("not running as root")
}

/// Installs `packages`; the services some of them bring are neither started nor enabled.
///
/// # Errors
/// When the package sources cannot be reached or a package cannot be installed.
pub(crate) fn install(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<()> {
    let _guard = NoServices::hold()?;
    apt_get(workspace, "apt-update", &["update"])?;
    let words = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    apt_get(workspace, "apt-install", &words)?;
    for service in ["redis-server", "postgresql"] {
        if packages.contains(&service) && Path::new("/run/systemd/system").is_dir() {
            // The tests start servers of their own; this one would take the usual port after a reboot.
            job::output_of(Command::new("systemctl").args(["disable", service]));
        }
    }
    Ok(())
}

fn apt_get(workspace: &Workspace, name: &str, words: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
    let finished = job::run(&workspace.logs(), name, &mut command)?;
    ensure!(
        finished.success,
        "{} failed:\n{}",
        job::describe(&command),
        finished.tail()
    );
    Ok(())
}

/// While held, Debian's `policy-rc.d` forbids package scripts to start services.
struct NoServices {
    made_by_us: bool,
}

impl NoServices {
    const PATH: &'static str = "/usr/sbin/policy-rc.d";

    fn hold() -> anyhow::Result<Self> {
        let made_by_us = !Path::new(Self::PATH).exists();
        if made_by_us {
            // 101 is "action forbidden by policy".
            std::fs::write(Self::PATH, "#!/bin/sh\nexit 101\n").context("forbidding services")?;
            std::fs::set_permissions(Self::PATH, Permissions::from_mode(0o755))?;
        }
        Ok(Self { made_by_us })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.made_by_us {
            let _ = std::fs::remove_file(Self::PATH);
        }
    }
}
