//! What differs between systems. Everything else here is POSIX and Rust's standard library: a call that only one
//! system has stands in this file or not at all, and a test looks for others.

/// The authorities that the system trusts.
#[cfg(not(target_os = "freebsd"))]
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The authorities that the system trusts.
#[cfg(target_os = "freebsd")]
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/cert.pem";

#[cfg(test)]
mod tests {
    /// Names of what only Linux has, or of systemd.
    const LINUX_ONLY: [&str; 12] = [
        "/proc/",
        "/sys/",
        "os::linux",
        "inotify",
        "epoll",
        "journald",
        "sd_notify",
        "openat2",
        "eventfd",
        "signalfd",
        "SO_PEERCRED",
        "abstract_name",
    ];

    /// Every file below a folder.
    fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn nothing_that_only_linux_has_stands_elsewhere() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        // Checks are made by this agent, too.
        let all: Vec<_> =
            ["src", "../checks/src"].iter().flat_map(|folder| files(&root.join(folder))).collect();
        assert!(all.len() > 20, "{all:?}");
        for path in all.into_iter().filter(|path| !path.ends_with("sys.rs")) {
            let text = std::fs::read_to_string(&path).unwrap();
            for name in LINUX_ONLY {
                assert!(!text.contains(name), "`{name}` in {}", path.display());
            }
        }
    }
}
