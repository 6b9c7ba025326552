//! What came of one run of an audit: what nodes tell after it, without what they told before.

use serde_json::{Value, json};

use crate::failure::Failure;

/// Members that are asked about one probe, where every member has a session.
const ASKED_MAX: u64 = 16;
const FAILURES: [&str; 3] = ["late", "stale", "silent"];

/// What the writers told before, taken from what they tell now: counts of probes and verdicts. Who is no member and told nothing new is
/// left out. What is the same is how long probes took, which is of all of a node's probes.
pub(super) fn since(before: &[Value], now: &[Value]) -> Vec<Value> {
    now.iter()
        .map(|now| {
            let is_same = |before: &&Value| {
                ["url", "cache", "epoch"]
                    .iter()
                    .all(|field| before[*field] == now[*field])
            };
            let empty = json!({});
            let before = before.iter().find(is_same).unwrap_or(&empty);
            let mut since = now.clone();
            for field in ["probes", "skipped"] {
                since[field] = left(before, now, field);
            }
            let peers = items(now, "peers").map(|peer| {
                let same = items(before, "peers").find(|before| before["id"] == peer["id"]);
                verdicts_since(same.unwrap_or(&empty), peer)
            });
            let peers = peers.filter(|peer| peer["member"] == true || seen(peer) > 0);
            since["peers"] = peers.collect();
            since
        })
        .collect()
}

fn verdicts_since(before: &Value, peer: &Value) -> Value {
    let mut since = peer.clone();
    let within = items(peer, "within").zip(0..).map(|(within, place)| {
        let before = &before["within"][place];
        let mut since = within.clone();
        for verdict in ["coherent", "late", "stale", "silent", "unknown"] {
            since[verdict] = left(before, within, verdict);
        }
        let failed: u64 = FAILURES.iter().map(|verdict| count(&since, verdict)).sum();
        since["nines"] = nines(count(&since, "coherent"), failed).into();
        since
    });
    since["within"] = within.collect();
    since
}

fn left(before: &Value, now: &Value, field: &str) -> Value {
    count(now, field)
        .saturating_sub(count(before, field))
        .into()
}

/// As the node counts them.
#[expect(clippy::cast_precision_loss, reason = "a count of probes")]
fn nines(coherent: u64, failed: u64) -> f64 {
    let share = (coherent + failed + 1) as f64 / (failed + 1) as f64;
    (share.log10() * 100.0).floor() / 100.0
}

/// Fails, and says what to do, unless every writer has written all its probes in this run and every member had them.
pub(super) fn judge_run(since: &[Value]) -> Result<(), Failure> {
    if since.is_empty() {
        return Err(Failure::failed(
            "nothing has been audited: there is no such cache, or it is local",
        ));
    }
    let wrong: Vec<String> = since.iter().flat_map(wrong_with).collect();
    fail_with(&wrong)
}

fn wrong_with(writer: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = format!(
        "{} (cache {})",
        text(writer, "writer"),
        text(writer, "cache")
    );
    let (probes, skipped) = (count(writer, "probes"), count(writer, "skipped"));
    if skipped > 0 {
        wrong.push(format!(
            "{name} could not write {skipped} of {} probes: its clock is off, it may not write in a netsplit, or its cache has no room; see `nearcache info`",
            skipped + probes
        ));
    } else if probes == 0 {
        wrong.push(format!(
            "{name} has written no probe: it was stopped or started again meanwhile"
        ));
    }
    let members = count(writer, "members");
    if members == 0 {
        wrong.push(format!(
            "{name} knows of no other member: it is alone or cut off; see `nearcache members`"
        ));
    }
    let failed: u64 = items(writer, "peers").map(failed).sum();
    if failed > 0 {
        let total: u64 = items(writer, "peers").map(seen).sum();
        wrong.push(format!(
            "{failed} of {total} looks for probes of {name} did not find them in time"
        ));
    }
    if wrong.is_empty() {
        wrong.extend(wrong_with_members(writer, &name, probes, members));
    }
    wrong
}

/// Who has shown nothing, where nobody has shown anything wrong.
fn wrong_with_members(writer: &Value, name: &str, probes: u64, members: u64) -> Option<String> {
    let shows = |peer: &&Value| count_all(peer, "coherent") > 0;
    let shown = items(writer, "peers").filter(shows).count() as u64;
    // Beyond a full mesh more probes than these may be needed until everybody had its turn.
    let wanted = if writer["by_tree"] == true {
        1
    } else {
        members.min(probes.saturating_mul(ASKED_MAX))
    };
    if shown >= wanted {
        return None;
    }
    let told = |peer: &&Value| peer["member"] == true && seen(peer) > 0;
    let unknown = items(writer, "peers")
        .filter(told)
        .filter(|peer| !shows(peer));
    let unknown: Vec<String> = unknown.map(peer_name).collect();
    Some(if unknown.is_empty() {
        format!(
            "{} of {members} other members have told nothing of probes of {name}: they are not connected, or have not opened the cache with the same settings; see `nearcache members`",
            members.saturating_sub(shown)
        )
    } else {
        format!(
            "nothing shows whether probes of {name} have come to {}: it has dropped what it held, or evicts so much that it remembers no single keys",
            unknown.join(", ")
        )
    })
}

/// Fails if a member was ever late, stale or silent, or if there is nothing to judge by.
pub(super) fn judge_all(told: &[Value]) -> Result<(), Failure> {
    let rows = || told.iter().flat_map(|told| items(told, "peers"));
    let members = || rows().filter(|peer| peer["member"] == true);
    let failed: u64 = members().map(failed).sum();
    let coherent: u64 = members().map(|peer| count_all(peer, "coherent")).sum();
    let anew = "`nearcache audit --for 10s` looks anew";
    let wrong = if failed > 0 {
        let total: u64 = members().map(seen).sum();
        Some(format!(
            "{failed} of {total} looks since the node started did not find the probe in time; {anew}"
        ))
    } else {
        (coherent == 0).then(|| format!("nothing has been audited; {anew}"))
    };
    fail_with(wrong.as_slice())
}

fn fail_with(wrong: &[String]) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(wrong.join("; ")))
}

/// Looks that did not find the probe in time.
pub(super) fn failed(peer: &Value) -> u64 {
    FAILURES
        .iter()
        .map(|verdict| count_all(peer, verdict))
        .sum()
}

/// All looks.
fn seen(peer: &Value) -> u64 {
    failed(peer) + count_all(peer, "coherent") + count_all(peer, "unknown")
}

/// Verdicts of one kind, after whatever time.
pub(super) fn count_all(peer: &Value, verdict: &str) -> u64 {
    items(peer, "within")
        .map(|within| count(within, verdict))
        .sum()
}

pub(super) fn count(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

pub(super) fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or("?").to_owned()
}

fn peer_name(peer: &Value) -> String {
    let name = if peer["name"].is_null() { "id" } else { "name" };
    text(peer, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, [coherent, late, unknown]: [u64; 3]) -> Value {
        json!({
            "id": id, "name": id, "member": true,
            "within": [
                {"seconds": 1, "coherent": coherent, "late": late, "stale": 0, "silent": 0, "unknown": unknown, "nines": 9.0},
                {"seconds": 5, "coherent": 0, "late": 0, "stale": 0, "silent": 0, "unknown": 0, "nines": 9.0},
            ],
        })
    }

    fn told(probes: u64, members: u64, peers: &[Value]) -> Value {
        json!({
            "url": "u", "writer": "a", "cache": "c", "by_tree": false,
            "probes": probes, "skipped": 0, "members": members, "peers": peers,
        })
    }

    fn judged(before: &Value, now: &Value) -> Result<(), String> {
        let since = since(std::slice::from_ref(before), std::slice::from_ref(now));
        judge_run(&since).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn c11_a_run_is_judged_by_what_is_new() {
        let before = told(5, 2, &[peer("b", [3, 7, 0]), peer("gone", [0, 9, 0])]);
        let mut now = told(7, 2, &[peer("b", [5, 7, 0]), peer("d", [2, 0, 0])]);
        let gone = {
            let mut gone = peer("gone", [0, 9, 0]);
            gone["member"] = false.into();
            gone
        };
        now["peers"].as_array_mut().unwrap().push(gone);
        assert_eq!(judged(&before, &now), Ok(()));
        let new = since(std::slice::from_ref(&before), std::slice::from_ref(&now));
        assert_eq!(new[0]["peers"].as_array().unwrap().len(), 2, "{new:?}");
        let first = &new[0]["peers"][0]["within"][0];
        assert_eq!((count(first, "coherent"), count(first, "late")), (2, 0));
        assert_eq!(first["nines"], 0.47);
        // Without a run of its own all is judged, of those that are members.
        let all = judge_all(std::slice::from_ref(&now)).unwrap_err();
        assert!(format!("{all:?}").contains("7 of 14 looks"), "{all:?}");
        assert!(judge_all(&[]).is_err());
        let late = told(8, 2, &[peer("b", [6, 8, 0]), peer("d", [3, 0, 0])]);
        assert!(judged(&now, &late).unwrap_err().contains("1 of 3 looks"));
    }

    #[test]
    fn c11_a_run_in_which_nobody_was_asked_is_no_success() {
        let well = [peer("b", [3, 0, 0]), peer("d", [3, 0, 0])];
        let before = told(3, 2, &well);
        let cut_off = judged(&before, &told(5, 0, &[])).unwrap_err();
        assert!(cut_off.contains("no other member"), "{cut_off}");
        let idle = judged(&before, &told(3, 2, &well)).unwrap_err();
        assert!(idle.contains("no probe"), "{idle}");
        let mut skips = told(3, 2, &well);
        skips["skipped"] = 2.into();
        let skips = judged(&before, &skips).unwrap_err();
        assert!(skips.contains("could not write 2 of 2 probes"), "{skips}");
        let one = [peer("b", [4, 0, 0]), peer("d", [3, 0, 0])];
        let one = judged(&before, &told(4, 2, &one)).unwrap_err();
        assert!(one.contains("1 of 2 other members"), "{one}");
        let unknown = [peer("b", [4, 0, 0]), peer("d", [3, 0, 1])];
        let unknown = judged(&before, &told(4, 2, &unknown)).unwrap_err();
        assert!(unknown.contains("have come to d"), "{unknown}");
        assert!(judge_run(&[]).is_err());
    }

    #[test]
    fn of_more_members_than_are_asked_as_many_must_answer_as_were() {
        let few: Vec<Value> = (0..16).map(|n| peer(&format!("n{n}"), [1, 0, 0])).collect();
        let before = told(0, 60, &[]);
        assert_eq!(judged(&before, &told(1, 60, &few)), Ok(()));
        assert!(judged(&before, &told(2, 60, &few)).is_err());
        let mut beyond = told(2, 60, &few);
        beyond["by_tree"] = true.into();
        let mut before = before;
        before["by_tree"] = true.into();
        assert_eq!(judged(&before, &beyond), Ok(()));
    }
}
