//! A pooler on the port is refused: a real pgbouncer, where one is installed.

use std::process::{Child, Command};

use pointsman_core::Code;

use crate::kit::{Ground, soon};

/// Where Debian's package puts it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";
const PORT: u16 = 6432;

struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn start(ground: &Ground) -> Pooler {
    let folder = ground.cluster.socket();
    let text = format!(
        "[databases]\n* = host={folder} port={port}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {folder}\n\
         auth_type = any\npool_mode = transaction\nuser = postgres\nignore_startup_parameters = extra_float_digits\n",
        folder = folder.display(),
        port = ground.settings.port,
    )
    .replace("auth_type = any", "auth_type = trust\nauth_file = USERS");
    let users = ground.cluster.folder().join("users.txt");
    std::fs::write(&users, "\"pointsman\" \"\"\n").unwrap();
    let file = ground.cluster.folder().join("pgbouncer.ini");
    std::fs::write(&file, text.replace("USERS", &users.display().to_string())).unwrap();
    let pooler = Pooler(Command::new(PROGRAM).arg(&file).spawn().unwrap());
    soon(|| folder.join(format!(".s.PGSQL.{PORT}")).exists().then_some(()));
    pooler
}

#[tokio::test]
async fn a_port_that_changes_its_backend_is_refused() {
    if !std::path::Path::new(PROGRAM).exists() {
        println!("pgbouncer is not installed: not tried");
        return;
    }
    let mut ground = Ground::new("");
    let _pooler = start(&ground);
    ground.settings.port = PORT;
    ground.settings.maintenance = ground.settings.name.clone();
    let problem = ground.expand(&[("v1.0.0.sql", "CREATE TABLE t (a int)")]).await.unwrap_err();
    assert_eq!(problem.code, Code::DatabaseUnfit, "{problem:?}");
    assert!(problem.message.contains("port 6432 changes its backend"), "{problem}");
}
