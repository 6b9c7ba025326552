//! Plans that failed once, written down in full, run again.
//!
//! A plan is kept when its seed no longer says enough: it outlives changes of how plans are drawn.

use nearcache_sim::{Options, run_text};

#[test]
fn no_plan_that_failed_once_fails_again() -> Result<(), Box<dyn std::error::Error>> {
    let mut replayed = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/regressions"))? {
        let file = file?.path();
        let text = std::fs::read_to_string(&file)?;
        let report = run_text(&text, Options::default());
        let report = report.map_err(|why| format!("{}: {why}", file.display()))?;
        if let Some(failure) = report.failure {
            panic!("{}: {}", file.display(), failure.violation);
        }
        replayed += 1;
    }
    assert!(replayed > 0, "the plans are in the repository");
    Ok(())
}
