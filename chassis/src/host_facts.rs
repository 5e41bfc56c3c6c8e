//! Facts of the host an agent runs on.

use std::path::Path;

use pointsman_core::ports::Clock as _;
use pointsman_proto::v1;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::SystemClock;

/// Load, memory and clock of this host, and room on the file system that holds `path`.
pub fn host_facts(path: &Path) -> v1::HostFacts {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted).ok();
    let room = rustix::fs::statvfs(path).ok();
    let blocks = |count: u64| room.as_ref().map_or(0, |room| count.saturating_mul(room.f_frsize));
    v1::HostFacts {
        disk_free_bytes: blocks(room.as_ref().map_or(0, |room| room.f_bavail)),
        disk_total_bytes: blocks(room.as_ref().map_or(0, |room| room.f_blocks)),
        inodes_free: room.as_ref().map_or(0, |room| room.f_favail),
        inodes_total: room.as_ref().map_or(0, |room| room.f_files),
        load1_milli: System::load_average().map_or(0, |load| load_milli(load.one)),
        memory_available_bytes: system.as_ref().map_or(0, System::available_memory),
        memory_total_bytes: system.as_ref().map_or(0, System::total_memory),
        clock_ms: SystemClock.now().0,
    }
}

/// A load average in thousandths.
fn load_milli(load: f64) -> u64 {
    // A load is small and not negative; the cast saturates otherwise.
    (load * 1000.0) as u64
}
