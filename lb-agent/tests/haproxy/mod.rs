//! A real HAProxy as a child of a test, and a server for it to lead visitors to. Without an installed one a test says that it
//! was skipped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time for it to end when it is asked to.
const ORDERLY_END: Duration = Duration::from_secs(20);

/// An HAProxy in master-worker mode. Dropping it ends it.
pub struct Process(Child);

impl Process {
    /// Starts it in a folder, with these files, or folders of files, and its master's socket `master.sock` there; what it says goes
    /// to `haproxy.log`.
    pub fn start(folder: &Path, files: &[&Path]) -> Self {
        let log = std::fs::File::create(folder.join("haproxy.log")).unwrap();
        let mut command = Command::new("haproxy");
        command.current_dir(folder).arg("-W").arg("-S").arg(folder.join("master.sock"));
        for file in files {
            command.arg("-f").arg(file);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }

    /// Sends its master a signal, as `-USR2`.
    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first, so that its workers end with it.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let give_up = Instant::now() + ORDERLY_END;
        while Instant::now() < give_up && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether one is installed.
pub fn is_installed() -> bool {
    let installed = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_ok();
    if !installed {
        println!("skipped: no haproxy is installed");
    }
    installed
}

/// What a path is answered with: a status that it names, or 200; `/endless` with a body that never ends, `/hang` with nothing for as
/// long as anybody waits.
fn answer(request: &[u8], stream: &mut TcpStream) -> std::io::Result<()> {
    let status =
        [500, 404].into_iter().find(|status| request.starts_with(format!("GET /{status}").as_bytes()));
    if request.starts_with(b"GET /endless") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 1000])?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if request.starts_with(b"GET /hang") {
        let _ = stream.read(&mut [0; 1]);
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    let status = status.unwrap_or(200);
    stream.write_all(format!("HTTP/1.1 {status} Said\r\nContent-Length: 2\r\n\r\nok").as_bytes())
}

/// Answers every request as its path says.
pub fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(count) = stream.read(&mut chunk)
                    && count > 0
                {
                    if answer(chunk.get(..count).unwrap_or_default(), &mut stream).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
