//! What the system knows of a process: its share of processors and memory. Only Linux tells.

use std::fs;

/// Ticks a second of the processor times in `/proc`.
const TICKS: f64 = 100.0;

/// The fields of `/proc/PID/stat` after the name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
}

/// The process that started this one.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    u32::try_from(*stat(pid)?.get(1)?).ok()
}

/// The program's name.
pub(crate) fn name(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

/// Seconds of processor time so far, with those of children that have ended.
pub(crate) fn cpu(pid: u32) -> Option<f64> {
    Some(stat(pid)?.get(11..15)?.iter().sum::<u64>() as f64 / TICKS)
}

/// The same for a process and all its living children.
pub(crate) fn family_cpu(pid: u32) -> Option<f64> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let children = children.split_whitespace().filter_map(|pid| cpu(pid.parse().ok()?));
    Some(cpu(pid)? + children.sum::<f64>())
}

/// Memory in use, in MiB.
pub(crate) fn rss(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
