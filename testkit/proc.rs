//! What the system knows of a process. Only Linux tells.

use std::fs;

/// Milliseconds of a tick of the processor times in `/proc`.
const TICK_MS: u64 = 10;

/// The fields of `/proc/PID/stat` after the name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn state(pid: u32) -> Option<String> {
    stat(pid)?.into_iter().next()
}

/// Whether it runs; one that has ended and that nobody has waited for does not.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| !["Z", "X"].contains(&state.as_str()))
}

/// Whether it was stopped where it stands.
pub fn is_frozen(pid: u32) -> bool {
    state(pid).is_some_and(|state| state == "T")
}

/// The process that started this one.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Its living children.
pub fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The program's name.
pub fn name(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

/// Milliseconds of processor time so far, with those of children that have ended.
pub fn cpu_ms(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    Some(fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * TICK_MS)
}

/// The same for a process and all its living children.
pub fn family_cpu_ms(pid: u32) -> Option<u64> {
    Some(cpu_ms(pid)? + children(pid).into_iter().filter_map(cpu_ms).sum::<u64>())
}

/// Memory in use, in KB.
pub fn resident_kb(pid: u32) -> Option<u64> {
    status_kb(pid, "VmRSS:")
}

/// The most memory that it ever had in use, in KB.
pub fn peak_kb(pid: u32) -> Option<u64> {
    status_kb(pid, "VmHWM:")
}

fn status_kb(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}
