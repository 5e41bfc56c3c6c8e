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

    #[test]
    fn nothing_that_only_linux_has_stands_elsewhere() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut looked_at = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("sys.rs") {
                continue;
            }
            looked_at += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for name in LINUX_ONLY {
                assert!(!text.contains(name), "`{name}` in {}", path.display());
            }
        }
        assert!(looked_at > 10, "{looked_at}");
    }
}
