//! HAProxy's answers, parsed whole or not at all. Columns and fields are found by name: versions append.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What `show info` says that we need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Process id of the worker.
    pub pid: u32,
    /// HAProxy's version.
    pub version: String,
    /// The worker is on its way out: it serves the connections it has, and takes no new ones.
    pub stopping: bool,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// When it started, in seconds since 1970; versions before 2.6 do not say.
    pub started_s: Option<u64>,
}

impl Info {
    /// Which worker this is.
    pub fn worker(&self) -> WorkerId {
        WorkerId { pid: self.pid, started_s: self.started_s }
    }
}

/// One worker among all that there ever are: after a start of the machine the first worker often has the process id that
/// the last one had before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId {
    /// Its process id.
    pub pid: u32,
    /// When it started, where that is known.
    pub started_s: Option<u64>,
}

impl WorkerId {
    /// Whether both name one worker, as far as both say.
    pub fn is(self, other: Self) -> bool {
        let started = self.started_s.zip(other.started_s);
        self.pid == other.pid && started.is_none_or(|(one, other)| one == other)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.started_s {
            Some(started_s) => write!(f, "{} {started_s}", self.pid),
            None => write!(f, "{}", self.pid),
        }
    }
}

impl FromStr for WorkerId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_whitespace();
        let pid = words.next().unwrap_or_default().parse()?;
        Ok(Self { pid, started_s: words.next().map(str::parse).transpose()? })
    }
}

/// A whole answer ends with an empty line. One without was cut, by the end of the worker that gave it.
fn whole(reply: &str) -> Option<&str> {
    (reply == "\n" || reply.ends_with("\n\n")).then_some(reply)
}

/// Parses `show info`.
pub fn info(reply: &str) -> Option<Info> {
    let reply = whole(reply)?;
    let fields: BTreeMap<&str, &str> = reply.lines().filter_map(|line| line.split_once(": ")).collect();
    Some(Info {
        pid: fields.get("Pid")?.parse().ok()?,
        version: (*fields.get("Version")?).to_owned(),
        stopping: *fields.get("Stopping")? != "0",
        uptime_s: fields.get("Uptime_sec")?.parse().ok()?,
        started_s: fields.get("Start_time_sec").and_then(|text| text.parse().ok()),
    })
}

/// What a worker can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files it may have open.
    pub files: u64,
    /// Connections it takes, by its configuration.
    pub connections: u64,
}

/// Parses what `show info` says of limits.
pub fn limits(reply: &str) -> Option<Limits> {
    let reply = whole(reply)?;
    let field = |name: &str| {
        let value =
            reply.lines().filter_map(|line| line.split_once(": ")).find(|(known, _)| *known == name)?;
        value.1.trim().parse().ok()
    };
    Some(Limits { files: field("Ulimit-n")?, connections: field("Hard_maxconn")? })
}

/// A command socket, as `show cli sockets` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliSocket {
    /// `unix@/run/haproxy/pointsman.sock`, `ipv4@127.0.0.1:9999`, `sockpair@4` ...
    pub address: String,
    /// `admin`, `operator`, `user`.
    pub level: String,
}

/// Parses `show cli sockets`.
pub fn cli_sockets(reply: &str) -> Option<Vec<CliSocket>> {
    let mut lines = whole(reply)?.lines();
    lines.next().filter(|header| header.starts_with("# socket lvl"))?;
    let mut sockets = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (address, rest) = line.split_once(' ')?;
        let level = rest.split_whitespace().next()?;
        sockets.push(CliSocket { address: address.to_owned(), level: level.to_owned() });
    }
    Some(sockets)
}

/// Parses `show cli level`: `admin`, `operator` or `user`.
pub fn cli_level(reply: &str) -> Option<String> {
    let level = whole(reply)?.trim();
    ["admin", "operator", "user"].contains(&level).then(|| level.to_owned())
}

/// Parses `show map`: the files of all maps.
pub fn maps(reply: &str) -> Option<Vec<String>> {
    let mut lines = whole(reply)?.lines();
    lines.next().filter(|header| header.starts_with("# id (file)"))?;
    let files = lines.filter(|line| !line.is_empty()).map(|line| {
        let (_, rest) = line.split_once(" (")?;
        Some(rest.split_once(") ")?.0.to_owned())
    });
    files.collect()
}

/// Parses `show env HAPROXY_CFGFILES`: the configuration files that HAProxy has loaded, in its order.
pub fn loaded_files(reply: &str) -> Option<Vec<String>> {
    let files = whole(reply)?.trim().strip_prefix("HAPROXY_CFGFILES=")?;
    Some(files.split(';').filter(|file| !file.is_empty()).map(str::to_owned).collect())
}

/// What `get map` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapValue {
    /// The key's value.
    Found(String),
    /// The map does not have the key.
    Missing,
}

/// Parses `get map FILE KEY`.
pub fn map_value(reply: &str) -> Option<MapValue> {
    let line = whole(reply)?.trim_end();
    if line.contains('\n') || !line.starts_with("type=") {
        return None;
    }
    if line.contains(", found=no") {
        return Some(MapValue::Missing);
    }
    let (_, rest) = line.split_once(", value=\"")?;
    let (value, _) = rest.rsplit_once("\", type=")?;
    Some(MapValue::Found(value.to_owned()))
}

/// Parses `show map FILE`: the values in it, by key, in order. One key twice stands there twice.
pub fn map_entries(reply: &str) -> Option<Vec<(String, String)>> {
    let lines = whole(reply)?.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut fields = line.splitn(3, ' ');
            let pointer = fields.next().filter(|pointer| pointer.starts_with("0x"));
            Some((pointer, fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .map(|entry| entry.and_then(|(pointer, key, value)| pointer.map(|_| (key, value))))
        .collect()
}

/// Parses `show backend`.
pub fn backends(reply: &str) -> Option<Vec<String>> {
    let names = whole(reply)?.strip_prefix("# name\n")?;
    Some(names.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The worker processes that `show proc` lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Workers that take new connections, as the master thinks.
    pub workers: Vec<u32>,
    /// Workers of before the last reload. After a failed reload the live worker may stand here.
    pub old_workers: Vec<u32>,
    /// Reloads that failed.
    pub failed_reloads: u32,
}

/// Parses `show proc`.
pub fn processes(reply: &str) -> Option<Processes> {
    let mut lines = whole(reply)?.lines();
    lines.next().filter(|header| header.starts_with("#<PID>"))?;
    let mut found = Processes::default();
    let mut old = false;
    for line in lines.filter(|line| !line.is_empty()) {
        match line {
            "# workers" => old = false,
            "# old workers" => old = true,
            "# programs" => break,
            _ => {
                let mut fields = line.split_whitespace();
                let pid = fields.next()?.parse().ok()?;
                match fields.next()? {
                    "worker" if old => found.old_workers.push(pid),
                    "worker" => found.workers.push(pid),
                    "master" => {
                        let failed =
                            line.split_once("[failed: ").and_then(|(_, rest)| rest.split(']').next());
                        found.failed_reloads = failed.and_then(|count| count.parse().ok()).unwrap_or(0);
                    }
                    _ => return None,
                }
            }
        }
    }
    Some(found)
}

/// One row of `show stat`: a server, or the backend itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatRow {
    /// The backend.
    pub backend: String,
    /// The server, or `BACKEND`.
    pub server: String,
    /// `UP`, `DOWN`, `UP 1/3`, `no check`, `MAINT` ...
    pub status: String,
    /// The last health check: `L7OK`, `* L4TOUT` ...
    pub check_status: String,
    /// It takes visitors only while no other server can.
    pub backup: bool,
    /// It is a place of a `server-template` that no address has been found for: see [`mark_spare`].
    pub spare: bool,
    /// A program on it is asked for its state and weight (`agent-check`).
    pub has_agent: bool,
    /// Requests being served; on the backend's row also those that have no server yet.
    pub sessions: u64,
    /// Requests that began since the worker started, those that still run among them; on the backend's row also those that
    /// reached no server. Health checks are none.
    pub begun: u64,
    /// Requests since the worker started.
    pub requests_total: u64,
    /// Answers with a status of 500 to 599, HAProxy's own included on the backend's row.
    pub responses_5xx: u64,
    /// Requests that are over, whatever became of them.
    pub responses: u64,
    /// Connections to servers that failed.
    pub connection_errors: u64,
    /// Answers of servers that failed.
    pub response_errors: u64,
    /// Tries to connect to the same server again.
    pub retries: u64,
    /// Tries that were made at another server.
    pub redispatches: u64,
    /// Transfers that the client cut.
    pub client_aborts: u64,
}

/// How the answers are counted, by the first digit of their status; `other` are requests without one.
const RESPONSES: [&str; 6] = ["hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other"];

impl StatRow {
    /// Adds the counters of another row.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.sessions, other.sessions),
            (&mut self.begun, other.begun),
            (&mut self.requests_total, other.requests_total),
            (&mut self.responses_5xx, other.responses_5xx),
            (&mut self.responses, other.responses),
            (&mut self.connection_errors, other.connection_errors),
            (&mut self.response_errors, other.response_errors),
            (&mut self.retries, other.retries),
            (&mut self.redispatches, other.redispatches),
            (&mut self.client_aborts, other.client_aborts),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// Whether a server takes traffic and has proved that it can. `UP 1/3` has not: HAProxy counts a server as up
    /// right after maintenance, before any check.
    pub fn healthy(&self) -> bool {
        self.status == "UP" && self.check_status.trim_start_matches("* ").contains("OK")
    }

    /// Whether a person has put a server away, or one that it follows: by `disabled` in its line, or by `set server ... state`. A
    /// name that does not resolve is in maintenance too, and is nobody's wish.
    pub fn put_away(&self) -> bool {
        matches!(self.status.as_str(), "MAINT" | "DRAIN") || self.status.starts_with("MAINT (via ")
    }

    /// Whether HAProxy keeps a server in maintenance because its name has no address.
    pub fn unresolved(&self) -> bool {
        self.status == "MAINT (resolution)"
    }

    /// Backend and name of the server in HAProxy. The driver by server states knows a server of a slot by both, joined.
    pub fn named(&self) -> (&str, &str) {
        self.server.split_once('/').unwrap_or((&self.backend, &self.server))
    }

    /// Whether a server takes traffic and has neither proved that it can nor failed to: its worker has just started, and has
    /// not checked it yet, or not often enough.
    pub fn untried(&self) -> bool {
        let last = self.check_status.trim_start_matches("* ");
        self.status.starts_with("UP") && !self.healthy() && (last == "INI" || last.contains("OK"))
    }
}

/// Parses `show stat`: the rows of backends and servers, without frontends and listeners.
pub fn stat(reply: &str) -> Option<Vec<StatRow>> {
    let mut lines = whole(reply)?.lines();
    let header: Vec<&str> = lines.next()?.strip_prefix("# ")?.split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (backend, server, status, check, sessions, requests, errors) = (
        column("pxname")?,
        column("svname")?,
        column("status")?,
        column("check_status")?,
        column("scur")?,
        column("req_tot")?,
        column("hrsp_5xx")?,
    );
    // What only signals need may be missing: traffic is steered without it.
    let responses: Vec<usize> = RESPONSES.iter().filter_map(|name| column(name)).collect();
    let (connect, response, begun) = (column("econ"), column("eresp"), column("stot"));
    let (retries, redispatches, aborts) = (column("wretr"), column("wredis"), column("cli_abrt"));
    let backup = column("bck");
    // Right of the free texts, which a person may write commas into: only a row as long as the header is read.
    let agent = column("agent_status");
    let mut rows = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        // Values of the columns before the free texts hold neither commas nor quotes.
        let fields: Vec<&str> = line.split(',').collect();
        let text = |column: usize| fields.get(column).map(|field| (*field).to_owned());
        // A server's row has no `req_tot` in some versions: nothing then counts as 0.
        let number = |column: usize| match *fields.get(column)? {
            "" => Some(0),
            digits => digits.parse().ok(),
        };
        let optional = |column: Option<usize>| column.map_or(Some(0), number);
        rows.push(StatRow {
            responses: responses
                .iter()
                .try_fold(0u64, |sum, column| Some(sum.saturating_add(number(*column)?)))?,
            connection_errors: optional(connect)?,
            response_errors: optional(response)?,
            retries: optional(retries)?,
            redispatches: optional(redispatches)?,
            client_aborts: optional(aborts)?,
            backup: optional(backup)? > 0,
            spare: false,
            has_agent: agent.is_some_and(|column| {
                fields.len() == header.len() && fields.get(column).is_some_and(|field| !field.is_empty())
            }),
            backend: text(backend)?,
            server: text(server)?,
            status: text(status)?,
            check_status: text(check)?,
            sessions: number(sessions)?,
            begun: optional(begun)?,
            requests_total: number(requests)?,
            responses_5xx: number(errors)?,
        });
    }
    rows.retain(|row| row.server != "FRONTEND");
    Some(rows)
}

/// Parses from `show stat` by what algorithm each backend picks a server: `roundrobin`, `source` ... A backend of
/// which it is not said is missing.
pub fn algorithms(reply: &str) -> Option<BTreeMap<String, String>> {
    let mut lines = whole(reply)?.lines();
    let header: Vec<&str> = lines.next()?.strip_prefix("# ")?.split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (backend, server) = (column("pxname")?, column("svname")?);
    // Right of the free texts, which a person may write commas into: only a row as long as the header is read.
    let Some(algorithm) = column("algo") else { return Some(BTreeMap::new()) };
    let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() == header.len() && row.get(server) == Some(&"BACKEND"));
    let named =
        rows.filter_map(|row| Some(((*row.get(backend)?).to_owned(), (*row.get(algorithm)?).to_owned())));
    Some(named.filter(|(_, algorithm)| !algorithm.is_empty()).collect())
}

/// One server of `show servers state`: what was decided about it, whatever its checks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
    /// Its address, `-` or an empty text if it has none.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// The name that its address is found by, or the record that names it; empty if its line has an address.
    pub resolves: String,
    /// HAProxy speaks TLS to it.
    pub tls: bool,
    /// It was put into drain: it takes no new visitors.
    pub drained: bool,
    /// It is in maintenance: it takes no visitors and is not checked.
    pub in_maintenance: bool,
    /// Its weight now, and the one from the configuration.
    pub weight: u16,
    /// The weight from the configuration.
    pub initial_weight: u16,
}

/// Bits of `srv_admin_state`: drain by command and inherited; maintenance by command, inherited, from the
/// configuration, and for want of an address.
const DRAINED: u32 = 0x08 | 0x10;
const IN_MAINTENANCE: u32 = 0x01 | 0x02 | 0x04 | 0x20;

/// Parses `show servers state`.
pub fn server_states(reply: &str) -> Option<Vec<ServerState>> {
    let mut lines = whole(reply)?.lines();
    // The version of the format; all versions measured say 1.
    lines.next().filter(|version| *version == "1")?;
    let header: Vec<&str> = lines.next()?.strip_prefix("# ")?.split(' ').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (backend, server, address, port) =
        (column("be_name")?, column("srv_name")?, column("srv_addr")?, column("srv_port")?);
    let (admin, weight, initial) =
        (column("srv_admin_state")?, column("srv_uweight")?, column("srv_iweight")?);
    let tls = column("srv_use_ssl");
    let resolved_by = [column("srvrecord"), column("srv_fqdn")];
    let mut found = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields.len() != header.len() {
            return None;
        }
        let text = |column: usize| fields.get(column).map(|field| (*field).to_owned());
        let number = |column: usize| fields.get(column)?.parse::<u16>().ok();
        let admin: u32 = fields.get(admin)?.parse().ok()?;
        found.push(ServerState {
            backend: text(backend)?,
            server: text(server)?,
            address: text(address)?,
            port: number(port)?,
            resolves: resolved_by
                .iter()
                .flatten()
                .filter_map(|column| text(*column))
                .find(|name| name != "-")
                .unwrap_or_default(),
            // Not said is not known to be plain.
            tls: tls.and_then(|tls| fields.get(tls)).is_none_or(|tls| *tls != "0"),
            drained: admin & DRAINED != 0,
            in_maintenance: admin & IN_MAINTENANCE != 0,
            weight: number(weight)?,
            initial_weight: number(initial)?,
        });
    }
    Some(found)
}

/// Marks the places of templates that stand empty: HAProxy keeps them for addresses that the name of others may have one day. The one
/// server of a name that has no address is one that is missing.
pub fn mark_spare(rows: &mut [StatRow], states: &[ServerState]) {
    for row in rows.iter_mut().filter(|row| row.unresolved()) {
        let of = |state: &&ServerState| state.backend == row.backend;
        let Some(own) = states.iter().filter(of).find(|state| state.server == row.server) else { continue };
        let place = |state: &&ServerState| state.resolves == own.resolves;
        let is_empty = matches!(own.address.as_str(), "" | "-") && !own.resolves.is_empty();
        row.spare = is_empty && states.iter().filter(of).filter(place).count() > 1;
    }
}

/// A request that is being served, as `show sess` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// By what HAProxy knows it, `0x...`, for as long as it lasts.
    pub pointer: String,
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
    /// For how long, in seconds.
    pub age_s: u64,
}

/// A length of time as HAProxy writes it for people: two units at most, as `3s`, `1m4s`, `2d7h`.
fn age(text: &str) -> Option<u64> {
    let (mut seconds, mut digits) = (0u64, String::new());
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit = match letter {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    digits.is_empty().then_some(seconds)
}

/// Parses `show sess`: the requests that are at a server. Lines that are not of one are left out.
pub fn sessions(reply: &str) -> Option<Vec<Session>> {
    let lines = whole(reply)?.lines().filter(|line| line.starts_with("0x"));
    let field = |line: &str, name: &str| -> Option<String> {
        let words = line.split_whitespace();
        let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.next().map(str::to_owned)
    };
    let session = |line: &str| {
        let server = field(line, "srv").filter(|server| !server.starts_with('<'))?;
        let pointer = line.split_once(':')?.0.to_owned();
        Some(Session { pointer, backend: field(line, "be")?, server, age_s: age(&field(line, "age")?)? })
    };
    Some(lines.filter_map(session).collect())
}

/// Whether a command that answers nothing on success succeeded.
pub fn is_empty_success(reply: &str) -> bool {
    reply == "\n"
}

/// Parses from `show pools` how many bytes the buffer of a connection holds, which is what `tune.bufsize` set. The answer itself
/// goes through one such buffer, and lines that do not fit are left out (measured on 2.6): where fewer pools are listed than
/// there are, a buffer holds hardly more than the answer.
pub fn buffer_bytes(reply: &str) -> Option<usize> {
    let lines = || reply.lines().map(str::trim_start);
    let pools = || lines().filter_map(|line| line.strip_prefix("- Pool "));
    if let Some(pool) =
        whole(reply)?.lines().find_map(|line| line.trim_start().strip_prefix("- Pool buffer ("))
    {
        return pool.split_once(" bytes)")?.0.parse().ok();
    }
    let total =
        lines().find_map(|line| line.strip_prefix("Total: ")?.split(' ').next()?.parse::<usize>().ok());
    (total? > pools().count()).then_some(reply.len())
}

/// What `show ssl cert PATH` says of the certificate that is served under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// The path. A `*` before it means that it is the one of an open transaction, which nobody is shown.
    pub path: String,
    /// `Used`, `Unused` or `Uncommitted`.
    pub status: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Its SHA-1, in hexadecimal.
    pub sha1: String,
}

/// Parses `show ssl cert PATH`.
pub fn certificate(reply: &str) -> Option<ShownCertificate> {
    let reply = whole(reply)?;
    let fields: BTreeMap<&str, &str> = reply.lines().filter_map(|line| line.split_once(": ")).collect();
    let field = |name: &str| fields.get(name).map(|value| (*value).to_owned());
    let (serial, sha1) = (field("Serial")?, field("SHA1 FingerPrint")?);
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (reply.starts_with("Filename: ") && hex(&serial) && hex(&sha1)).then_some(())?;
    Some(ShownCertificate { path: field("Filename")?, status: field("Status")?, serial, sha1 })
}

/// Whether `set ssl cert PATH` opened a transaction, or changed the one that was open.
pub fn certificate_is_set(reply: &str, path: &str) -> bool {
    let set = ["created", "updated"].map(|verb| format!("Transaction {verb} for certificate {path}!"));
    whole(reply).is_some_and(|reply| set.contains(&reply.trim_end().to_owned()))
}

/// Whether `commit ssl cert PATH` succeeded. Lines before the last may say what was done on the way.
pub fn certificate_is_committed(reply: &str) -> bool {
    whole(reply).is_some_and(|reply| reply.trim_end().lines().next_back() == Some("Success!"))
}

/// By what a row of a stick table counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKey {
    /// An address: one of version 4 as such, also where the table holds it as one of version 6.
    Address(IpAddr),
    /// Anything else, such as a header's value, which visitors write: printable ASCII, what is not as HAProxy escapes it.
    Text(String),
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Text(text) => write!(f, "{text}"),
        }
    }
}

/// One row of a stick table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Who is counted.
    pub key: TableKey,
    /// Milliseconds until it is forgotten.
    pub expires_ms: u64,
    /// Requests in the last period.
    pub rate: u64,
    /// The period, in milliseconds.
    pub period_ms: u64,
}

/// What a stick table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKeys {
    /// Addresses of version 4.
    V4,
    /// Addresses of version 6, and among them those of version 4 as `::ffff:192.0.2.4`.
    V6,
    /// Something else: its type.
    Other(String),
}

impl TableKeys {
    /// How an address stands in the table; `None` where it cannot stand in it.
    pub fn key_of(&self, address: IpAddr) -> Option<IpAddr> {
        match (self, address.to_canonical()) {
            (Self::V4, IpAddr::V4(address)) => Some(IpAddr::V4(address)),
            (Self::V6, IpAddr::V4(address)) => Some(IpAddr::V6(address.to_ipv6_mapped())),
            (Self::V6, IpAddr::V6(address)) => Some(IpAddr::V6(address)),
            // A text: the address may be written in it.
            (Self::Other(_), address) => Some(address),
            (Self::V4, IpAddr::V6(_)) => None,
        }
    }
}

/// A stick table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it holds.
    pub keys: TableKeys,
    /// Its rows.
    pub entries: Vec<TableEntry>,
}

/// Parses `show table NAME`: the rows with their `http_req_rate`.
pub fn table(reply: &str, name: &str) -> Option<Table> {
    let mut lines = whole(reply)?.lines();
    let header = lines.next()?.strip_prefix("# table: ")?;
    let (_, header) = header.split_once(", ").filter(|(found, _)| *found == name)?;
    let keys = match header.strip_prefix("type: ")?.split(',').next()? {
        "ip" => TableKeys::V4,
        "ipv6" => TableKeys::V6,
        other => TableKeys::Other(other.to_owned()),
    };
    let entries = lines.filter(|line| !line.is_empty()).map(table_entry).collect::<Option<_>>()?;
    Some(Table { keys, entries })
}

/// The words of a row: a space that belongs to one has a `\` before it, as has a `\` and a `=`.
fn row_words(line: &str) -> Vec<&str> {
    let mut escaped = false;
    let ends = |letter: char| {
        let ends = letter == ' ' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    };
    line.split(ends).collect()
}

/// A key as HAProxy writes it, read. What cannot be printed stays escaped: visitors write keys, and a person's terminal shows them.
fn table_key(text: &str) -> Option<TableKey> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(TableKey::Address(address.to_canonical()));
    }
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ').then_some(())?;
    let mut key = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let plain = letters.next_if(|next| letter == '\\' && matches!(next, ' ' | '=' | '\\'));
        key.push(plain.unwrap_or(letter));
    }
    Some(TableKey::Text(key))
}

fn table_entry(line: &str) -> Option<TableEntry> {
    let mut words = row_words(line).into_iter();
    words.next().filter(|pointer| pointer.starts_with("0x") && pointer.ends_with(':'))?;
    let fields: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
    let rate = fields.iter().find_map(|(name, value)| Some((name.strip_prefix("http_req_rate(")?, value)))?;
    Some(TableEntry {
        key: table_key(fields.get("key")?)?,
        expires_ms: fields.get("exp")?.parse().ok()?,
        rate: rate.1.parse().ok()?,
        period_ms: rate.0.strip_suffix(')')?.parse().ok()?,
    })
}
