//! Faults at the full strength of `reliability.md` §2.1: minutes of cuts and stops, clocks a day off, every third message lost, links of
//! 10 kB/s, somebody coming or going every second.

use nearcache_sim::{Options, Place, Sometimes, run};

/// Seeds with loads that are known to fail.
const OPEN_LOADS: &[u64] = &[];

/// Runs these seeds; those that are known to fail and not mended yet must still fail. See "What is open" in docs/testing.md.
fn hold(seeds: u64, options: Options, open: &[u64]) -> Sometimes {
    let options = Options {
        full: true,
        ..options
    };
    let (mut sometimes, mut wrong) = (Sometimes::default(), Vec::new());
    for seed in 0..seeds {
        let report = run(seed, options);
        match report.failure {
            Some(failure) if !open.contains(&seed) => wrong.push(failure.to_string()),
            None if open.contains(&seed) => {
                wrong.push(format!("seed {seed} passes: take it out of the list"));
            }
            _ => sometimes.add(&report.sometimes),
        }
    }
    let last = |text: &String| text.lines().rev().take(2).collect::<Vec<_>>().join(" ");
    let all: Vec<String> = wrong.iter().map(last).collect();
    assert!(
        wrong.is_empty(),
        "{}\nall: {all:#?}",
        wrong.first().map_or("", String::as_str)
    );
    sometimes
}

#[test]
fn r1_r2_r3_c2_c11_hold_under_faults_at_full_strength() {
    let sometimes = hold(300, Options::default(), &[]);
    for place in [
        Place::LongCut,
        Place::LongPause,
        Place::LongestStop,
        Place::ClockJump,
        Place::ClockStaysWrong,
        Place::StoppedBySkew,
        Place::Lag,
        Place::LateMessage,
        Place::Loss,
        Place::MembershipLoss,
        Place::NarrowLink,
        Place::LeftUnderFaults,
        Place::StartedClean,
        Place::Apart,
    ] {
        assert!(sometimes.count(place) > 0, "{place:?} was never reached");
    }
}

#[test]
fn i1_i5_i8_c2_c11_hold_in_mode_invalidation_under_faults_at_full_strength() {
    let options = Options {
        invalidation: true,
        ..Options::default()
    };
    hold(100, options, &[]);
}

#[test]
fn c1_c4_c8_i7_hold_on_loads_under_faults_at_full_strength() {
    let options = Options {
        loads: true,
        ..Options::default()
    };
    hold(150, options, OPEN_LOADS);
}

#[test]
fn r1_r2_r3_c2_c11_hold_beyond_the_mesh_under_faults_at_full_strength() {
    let options = Options {
        tree: true,
        ..Options::default()
    };
    hold(60, options, &[]);
}
