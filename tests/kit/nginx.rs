//! A real nginx in the foreground, in one process and without root, that serves a site root's `current`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::Process;

/// What `/api/login` takes; it says what it was told to whoever tells it anything else.
pub const PASSWORD: &str = "canary-of-secrets-0815";

/// What an nginx is made of.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its folder: configuration, temporary files, and the files that make it fail.
    pub folder: PathBuf,
    /// The site root.
    pub site: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
}

impl Layout {
    /// While this file is there `/api/health` answers 500.
    pub fn health_breaker(&self) -> PathBuf {
        self.folder.join("health-breaker")
    }

    /// While this file is there `/api/deep` answers 500, and `/api/health` knows nothing of it.
    pub fn deep_breaker(&self) -> PathBuf {
        self.folder.join("deep-breaker")
    }

    /// While this file is there one in five visitors gets a 500, and no check knows of it.
    pub fn visitors_breaker(&self) -> PathBuf {
        self.folder.join("visitors-breaker")
    }

    /// Where an application takes WebSockets, which `/socket` leads to.
    pub fn application(&self) -> PathBuf {
        self.folder.join("application.sock")
    }

    fn config(&self) -> String {
        let application = self.application();
        let application = application.display();
        let folder = self.folder.display();
        let (site, listen) = (self.site.display(), self.listen);
        let (health, deep) = (self.health_breaker(), self.deep_breaker());
        let (health, deep) = (health.display(), deep.display());
        let visitors = self.visitors_breaker();
        let visitors = visitors.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {folder}/tmp-{kind};\n"))
            .collect();
        format!(
            r#"daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
{temporary}  access_log off;
  default_type application/octet-stream;
  types {{ text/html html; text/plain txt; application/javascript js; text/css css; }}
  keepalive_requests 1000000;
  split_clients $request_id $lot {{ 20% bad; * good; }}
  server {{
    listen {listen};
    root {site}/current;
    error_page 503 @maintenance;
    location = /api/health {{
      if (-f {health}) {{ return 500; }}
      try_files $uri @alive;
    }}
    location = /api/deep {{
      if (-f {deep}) {{ return 500; }}
      return 200 deep;
    }}
    location = /api/login {{
      default_type application/json;
      if ($http_authorization = 'Bearer {PASSWORD}') {{ return 200 '{{"token":"0123456789abcdef"}}'; }}
      return 403 'you said $http_authorization';
    }}
    location = /socket {{
      proxy_pass http://unix:{application}:/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
    location @alive {{ return 200 alive; }}
    location @maintenance {{ return 503 'maintenance of this host'; }}
    location / {{
      if (-f {site}/.maintenance) {{ return 503; }}
      set $met good;
      if (-f {visitors}) {{ set $met $lot; }}
      if ($met = bad) {{ return 500; }}
      try_files $uri $uri/index.html =404;
    }}
  }}
}}
"#
        )
    }
}

/// Starts an nginx.
pub fn start(name: &str, layout: &Layout, log: &Path) -> Result<Process> {
    std::fs::create_dir_all(&layout.folder)?;
    let config = layout.folder.join("nginx.conf");
    std::fs::write(&config, layout.config())?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&layout.folder).arg("-c").arg(&config).args(["-e", "stderr"]);
    Process::start(&format!("nginx of {name}"), &mut command, log).context("is nginx installed?")
}
