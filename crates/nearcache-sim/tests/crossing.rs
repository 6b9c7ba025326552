//! Members come and go across `mesh_max` while all nodes count.

use std::time::Duration;

use nearcache_sim::{Counted, Crossing, cross};

/// Sixteen that stay and three that come and go; messages take up to `delay_ms`.
fn count(seed: u64, mesh_max: usize, delay_ms: u64) -> Result<Counted, String> {
    let counted = cross(Crossing {
        seed,
        residents: 16,
        visitors: 3,
        mesh_max,
        rounds: 3,
        delay_max: Duration::from_millis(delay_ms),
    })?;
    assert_eq!(counted.lost(), 0, "seed {seed}: {counted:?}");
    assert!(counted.total <= counted.asked, "seed {seed}: {counted:?}");
    // Next to all are answered, and there is something to answer.
    assert!(counted.answered > 10_000, "seed {seed}: {counted:?}");
    assert!(
        counted.answered * 100 > counted.asked * 99,
        "seed {seed}: {counted:?}"
    );
    Ok(counted)
}

#[test]
fn no_increment_is_lost_while_members_come_and_go_across_the_mesh() -> Result<(), String> {
    // Each of these lost some while the tree went before the sessions of the mesh stood.
    for (seed, delay_ms) in [(1, 40), (2, 120)] {
        let counted = count(seed, 16, delay_ms)?;
        assert!(counted.parted > 0, "seed {seed}: {counted:?}");
    }
    Ok(())
}

#[test]
fn within_the_mesh_the_same_is_counted_and_no_session_is_ended() -> Result<(), String> {
    assert_eq!(count(1, 64, 40)?.parted, 0);
    Ok(())
}
