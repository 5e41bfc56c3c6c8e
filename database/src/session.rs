//! One session with the server: pinned, because locks and transactions belong to it. No pool.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::{Code, Problem};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use crate::{Settings, statement};

/// How long a server may take to accept a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of the server, the database or the role that would end the agent's sessions while they wait for something
/// else, or cut short what takes long. Not every version has all of them.
const LIMITS: [&str; 5] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
];

/// A session; it ends when this is dropped.
pub struct Session {
    client: Client,
    pid: i32,
    connection: AbortHandle,
}

impl Session {
    /// Connects to a database of the configured server, under an application name that begins with `pointsman-`. Nothing
    /// of it ends by itself: whoever wants a limit sets one.
    pub async fn open(settings: &Settings, database: &str, purpose: &str) -> Result<Self, Problem> {
        let opening = async {
            let session = Self::connect(settings, database, purpose).await?;
            session.lift_limits().await.map_err(|error| refused(settings, database, &error))?;
            Ok(session)
        };
        in_time(settings, database, opening).await
    }

    /// The same, and nothing is set: what is set behind a pooler stays with whoever comes next.
    pub(crate) async fn untouched(
        settings: &Settings,
        database: &str,
        purpose: &str,
    ) -> Result<Self, Problem> {
        in_time(settings, database, Self::connect(settings, database, purpose)).await
    }

    /// A database that was made read-only to stop its writers is the agent's to work on all the same; a backslash is one in
    /// what it writes, whatever the database's own texts are taken for; what looks at the catalog once is not compiled; and
    /// values and names have one text each, however the database is set to show them: they are compared by it.
    async fn lift_limits(&self) -> Result<(), tokio_postgres::Error> {
        let sql = "SELECT set_config(s.name, w.value, false)
                     FROM (SELECT unnest($1::text[]), '0' UNION ALL VALUES ('default_transaction_read_only', 'off'),
                                  ('standard_conforming_strings', 'on'), ('jit', 'off'),
                                  ('extra_float_digits', '3'), ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'),
                                  ('quote_all_identifiers', 'off')) AS w (name, value)
                     JOIN pg_catalog.pg_settings s USING (name)
                    WHERE s.setting <> w.value";
        self.client.query(sql, &[&LIMITS.as_slice()]).await.map(drop)
    }

    /// What a program is started with, as `PGOPTIONS`, for its sessions to have no limits either.
    pub(crate) async fn no_limits(&self) -> Result<String, Problem> {
        let sql = "SELECT coalesce(string_agg(format('-c %s=0', name), ' '), '') FROM pg_catalog.pg_settings
                    WHERE name = ANY ($1)";
        let row = self.client.query_one(sql, &[&LIMITS.as_slice()]).await;
        let row = row.map_err(|error| statement::refused("ask for the limits of sessions", &error))?;
        statement::field(&row, 0)
    }

    async fn connect(settings: &Settings, database: &str, purpose: &str) -> Result<Self, Problem> {
        let config = config(settings, database, purpose)?;
        let failed = |error: &tokio_postgres::Error| refused(settings, database, error);
        let (client, connection) = match &settings.tls {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(|error| failed(&error))?;
                (client, tokio::spawn(async move { _ = connection.await }).abort_handle())
            }
            Some(tls) => {
                let connector = MakeRustlsConnect::new(trusting(&tls.ca)?);
                let (client, connection) = config.connect(connector).await.map_err(|error| failed(&error))?;
                (client, tokio::spawn(async move { _ = connection.await }).abort_handle())
            }
        };
        let mut session = Self { client, pid: 0, connection };
        let row = session.client.query_one("SELECT pg_backend_pid()", &[]).await;
        session.pid = row.and_then(|row| row.try_get(0)).map_err(|error| failed(&error))?;
        Ok(session)
    }

    /// The client to speak through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same, where a transaction needs it for itself.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The server's process of this session.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn in_time(
    settings: &Settings,
    database: &str,
    opening: impl Future<Output = Result<Session, Problem>>,
) -> Result<Session, Problem> {
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
    opened.unwrap_or_else(|_| Err(unreachable(settings, database).cause("no answer within 5 s")))
}

fn config(settings: &Settings, database: &str, purpose: &str) -> Result<Config, Problem> {
    if settings.tls.is_none() && !settings.is_here() {
        let message =
            format!("`{}` is another machine: without TLS anybody between could read along", settings.host);
        return Err(Problem::new(Code::ConfigInvalid, message).hint(
            "set `tls = { ca = \"/etc/pointsman/pki/postgres-ca.pem\" }` in the agent's [database] section, or `host` to the \
             folder of the server's socket",
        ));
    }
    let mut config = Config::new();
    config
        .host(&settings.host)
        .port(settings.port)
        .user(&settings.user)
        .dbname(database)
        .application_name(format!("pointsman-{purpose}"))
        .connect_timeout(CONNECT_TIMEOUT)
        .ssl_mode(if settings.tls.is_some() { SslMode::Require } else { SslMode::Disable });
    if let Some(file) = &settings.password_file {
        let password = Zeroizing::new(std::fs::read_to_string(file).map_err(|error| {
            Problem::new(Code::ConfigInvalid, format!("cannot read the password file `{}`", file.display()))
                .because(&error)
        })?);
        config.password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(config)
}

/// A TLS configuration that trusts this authority and no other.
fn trusting(ca: &Path) -> Result<rustls::ClientConfig, Problem> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        Problem::new(Code::ConfigInvalid, format!("cannot use the certificates in `{}`", ca.display()))
            .because(error)
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

fn unreachable(settings: &Settings, database: &str) -> Problem {
    let message = format!(
        "cannot connect to `{database}` at {}:{} as `{}`",
        settings.host, settings.port, settings.user
    );
    Problem::new(Code::DatabaseUnreachable, message)
        .retry_useful()
        .hint("on the database host: `systemctl status postgresql`, then the agent's [database] section")
}

fn refused(settings: &Settings, database: &str, error: &tokio_postgres::Error) -> Problem {
    let problem = unreachable(settings, database);
    match error.as_db_error() {
        Some(error) => {
            // It answers, so that its unit has nothing to tell.
            let is_full = *error.code() == SqlState::TOO_MANY_CONNECTIONS;
            let problem = if is_full { problem.hint(statement::MORE_SESSIONS) } else { problem };
            problem.cause(format!("{}: {}", error.code().code(), error.message()))
        }
        None => problem.because(error),
    }
}
