//! What the system knows about this process.

/// Memory of the process; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process {
    /// The most it has held at once.
    pub peak_bytes: Option<u64>,
    /// What it holds now.
    pub resident_bytes: Option<u64>,
}

impl Process {
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
        };
        // On Linux, the peak of `getrusage` also knows the program that this process was before `exec`.
        Self { peak_bytes: kib("VmHWM:").or_else(usage_peak), resident_bytes: kib("VmRSS:") }
    }
}

/// Page faults since the process began; zero where the system does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Served from memory: a page was zeroed or mapped.
    pub minor: u64,
    /// Served from disk.
    pub major: u64,
}

#[cfg(unix)]
fn usage() -> Option<nix::sys::resource::Usage> {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_SELF).ok()
}

#[cfg(unix)]
fn usage_peak() -> Option<u64> {
    // In bytes on Apple's systems, in KiB elsewhere.
    const UNIT: u64 = if cfg!(target_vendor = "apple") { 1 } else { 1 << 10 };
    Some(u64::try_from(usage()?.max_rss()).ok()? * UNIT)
}

#[cfg(not(unix))]
fn usage_peak() -> Option<u64> {
    None
}

impl Faults {
    #[cfg(unix)]
    pub fn now() -> Self {
        let count = |value| u64::try_from(value).unwrap_or(0);
        usage().map_or_else(Self::default, |usage| Self {
            minor: count(usage.minor_page_faults()),
            major: count(usage.major_page_faults()),
        })
    }

    #[cfg(not(unix))]
    pub fn now() -> Self {
        Self::default()
    }
}
