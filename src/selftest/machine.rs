//! What the machine is, as far as it tells.

use std::process::Command;

use super::report::Fact;
use crate::kernels::simd::Isa;

/// The operating system and the processor.
pub fn facts() -> Vec<Fact> {
    vec![Fact::new("os", system()), Fact::new("cpu", processor())]
}

/// First line of what a program prints, where there is such a program.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

fn system() -> String {
    let family = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let version = if cfg!(target_os = "macos") {
        says("sw_vers", &["-productVersion"])
    } else {
        value("/etc/os-release", "PRETTY_NAME", '=')
    };
    version.map_or(family.clone(), |version| format!("{family}, {version}"))
}

fn processor() -> String {
    let name = if cfg!(target_os = "macos") {
        says("sysctl", &["-n", "machdep.cpu.brand_string"])
    } else {
        value("/proc/cpuinfo", "model name", ':')
    };
    format!("{}, {:?}", name.unwrap_or_else(|| "unknown".to_owned()), Isa::detect())
}

/// The value of the first line of a file that starts with `key`.
fn value(path: &str, key: &str, separator: char) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned())
}
