//! What a node costs does not grow with the number of nodes beyond a logarithm, also while nodes fail.

use nearcache_sim::{Row, Scale, Verdict, judge, measure};

/// So many nodes of which at most eight may be a mesh, with fewer writes than are measured by hand.
fn small(nodes: usize) -> Scale {
    Scale {
        updates_per_second: 20,
        seconds: 3,
        failing_before: 8,
        mesh_max: 8,
        ..Scale::shipped(nodes)
    }
}

/// The verdicts that have this in their names: how many there are, and those that are missed.
fn judged(rows: &[Row], name: &str) -> (usize, Vec<String>) {
    let verdicts = judge(rows).into_iter();
    let is_named = |verdict: &Verdict| verdict.what.contains(name);
    let named: Vec<Verdict> = verdicts.filter(is_named).collect();
    let missed = named.iter().filter(|verdict| !verdict.is_met());
    (named.len(), missed.map(Verdict::to_string).collect())
}

#[test]
fn point_9_sessions_and_messages_of_a_node_grow_with_the_logarithm_also_while_nodes_fail()
-> Result<(), String> {
    let rows = [
        measure(small(16), &mut |_| {})?,
        measure(small(64), &mut |_| {})?,
    ];
    for (name, count) in [
        ("idle: links mean", 3),
        ("nodes, faults: links", 4),
        ("idle: messages per s, growth", 1),
        ("equal after s", 2),
    ] {
        assert_eq!(judged(&rows, name), (count, Vec::new()), "{name}");
    }
    Ok(())
}

#[test]
fn sessions_that_nobody_wants_and_that_stay_are_found() -> Result<(), String> {
    let kept = Scale {
        surplus_stays: true,
        ..small(64)
    };
    let (_, missed) = judged(&[measure(kept, &mut |_| {})?], "idle: links mean");
    assert_eq!(missed.len(), 1);
    Ok(())
}
