//! The whole pipeline in virtual time: the real loops of up to three replicas on a model of the
//! database and of the topic, with customers, kitchens that report, outages, lost answers, refused messages, duplicates, transactions that commit late
//! or in vain, replicas that are killed and replicas that stand still.
//! Everything follows from a seed; a failure names it, and `SEED=n cargo test simulation` repeats it.

mod customers;
mod feed;
mod frozen;
mod kitchens;
mod topic;
mod world;

use std::time::Duration;

use world::{Faults, World};

/// How many seeds a run tries: with trouble, and without.
const SEEDS: u64 = 1_000;
const QUIET_SEEDS: u64 = 200;

fn check(seed: u64, trouble: Faults) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let story = async {
        let world = World::new(seed, trouble);
        // Half an hour of the story's time; a second or so of ours at the very worst.
        tokio::time::timeout(Duration::from_mins(30), world.run()).await.expect("it comes to rest");
    };
    runtime.expect("starts").block_on(story);
}

/// Runs the seeds on two threads and names those that failed.
fn check_all(trouble: Faults, count: u64) {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..count).collect(),
    };
    let failed = std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2)).map(|half| {
            scope.spawn(move || {
                let fails = |seed: &u64| std::panic::catch_unwind(|| check(*seed, trouble)).is_err();
                half.iter().copied().filter(fails).collect::<Vec<_>>()
            })
        });
        let halves: Vec<_> = halves.collect();
        halves.into_iter().flat_map(|half| half.join().expect("caught")).collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "repeat with SEED={}; all that failed: {failed:?}", failed[0]);
}

/// Promise 1: accepted means durable. Here with all the others, whatever happens: those who follow the feed are told
/// each event once, in order, at whichever replica they ask.
#[test]
fn any_trouble_is_survived() {
    check_all(Faults::Any, SEEDS);
}

/// Promise 2: everything accepted reaches the topic; without trouble, exactly once.
#[test]
fn a_quiet_day_has_no_duplicates() {
    check_all(Faults::None, QUIET_SEEDS);
}
