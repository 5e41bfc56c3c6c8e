//! Looking into HAProxy's tables of rate limits, and taking one address out of them. The limits themselves stand in
//! HAProxy's configuration.

use std::net::IpAddr;

use pointsman_chassis::agent_service::Rule;
use pointsman_core::{Code, Problem};
use pointsman_proto::{agent_v1, convert, v1};

use crate::balancer::Balancer;
use crate::command::Command;
use crate::config::TableName;
use crate::reply::{self, Table, TableEntry, TableKey, TableKeys};
use crate::socket::unreadable;
use crate::workers::{NO_TABLE, first_line};

/// Most entries that are answered with, the highest rates: a person reads them, and one message holds them.
const MAX_ENTRIES: usize = 500;

fn tables<'a>(balancer: &'a Balancer, wanted: &str) -> Result<Vec<&'a TableName>, Problem> {
    let granted = balancer.config.haproxy.rate_limit_tables.iter().map(|table| &table.0);
    let found: Vec<&TableName> =
        granted.filter(|table| wanted.is_empty() || table.as_str() == wanted).collect();
    if found.is_empty() {
        let message = match wanted {
            "" => "this agent may look into no table of rate limits".to_owned(),
            _ => format!("`{wanted}` is not among the tables that this agent may look into"),
        };
        return Err(Problem::new(Code::RateTableUnknown, message)
            .hint("add it to `rate_limit_tables` in lb-agent.toml on the load balancer"));
    }
    Ok(found)
}

/// Answers with who is above a rate, and which tables could not be read, after forgetting one of them if the request says so. That one is
/// answered with all the same if it is still there.
pub async fn rate_limits(
    balancer: &Balancer,
    request: &agent_v1::RateLimitsRequest,
    rule: &Rule,
) -> Result<v1::RateLimitsReply, Problem> {
    let tables = tables(balancer, &request.table)?;
    let address = match request.unblock.as_str() {
        "" => None,
        // Written out anew, it is one word whatever came.
        text => Some(text.parse::<IpAddr>().map(|address| address.to_canonical()).map_err(|_| {
            Problem::new(Code::MessageInvalid, "field `unblock` of the message is no IP address")
        })?),
    };
    if let Some(address) = address {
        unblock(balancer, &tables, address, rule).await?;
    }
    let mut reply = v1::RateLimitsReply::default();
    let mut unread = Vec::new();
    for table in &tables {
        let above = address.map_or(request.min_rate, |_| 0);
        match show(balancer, table, above).await {
            // It has forgotten the address, and says of nobody how often they ask.
            Ok(None) if address.is_some() => {}
            Ok(None) => unread.push(no_rates(table)),
            Ok(Some(read)) => {
                let wanted = |entry: &TableEntry| {
                    address.is_none_or(|address| entry.key == TableKey::Address(address))
                };
                let entries = read.entries.into_iter().filter(wanted);
                reply.entries.extend(entries.map(|entry| to_wire(table, &entry)));
            }
            // Who is counted in the others is told all the same.
            Err(problem) => unread.push(problem),
        }
    }
    if !unread.is_empty() && unread.len() == tables.len() {
        return Err(unread.swap_remove(0));
    }
    reply.unread = unread.iter().map(convert::problem_to_wire).collect();
    reply.found = reply.entries.len() as u64;
    reply.entries.sort_by(|a, b| b.rate.cmp(&a.rate).then_with(|| a.key.cmp(&b.key)));
    reply.entries.truncate(MAX_ENTRIES);
    Ok(reply)
}

/// Forgets an address in every table, whatever one of them says: each that is left out may go on refusing it. A table that
/// cannot hold it has nothing to forget.
async fn unblock(
    balancer: &Balancer,
    tables: &[&TableName],
    address: IpAddr,
    rule: &Rule,
) -> Result<(), Problem> {
    let mut done = Ok(());
    for table in tables {
        rule.check()?;
        let forgotten = async {
            // HAProxy answers `clear` of what is not there as it answers any other, so only the table itself can be missing.
            match keys(balancer, table).await?.key_of(address) {
                Some(key) => balancer.workers.clear_key(table.as_str(), key).await,
                None => Ok(()),
            }
        };
        let said = forgotten.await;
        done = done.and(said);
    }
    done
}

/// What tables store of a visitor. By any of it that a table has, HAProxy says what its keys are, and shows nobody.
const STORED: [&str; 17] = [
    "http_req_rate",
    "http_err_rate",
    "http_fail_rate",
    "conn_rate",
    "sess_rate",
    "conn_cur",
    "conn_cnt",
    "sess_cnt",
    "http_req_cnt",
    "http_err_cnt",
    "gpc0",
    "gpc0_rate",
    "gpc1",
    "gpc1_rate",
    "gpt0",
    "bytes_in_rate",
    "bytes_out_rate",
];

/// What a table goes by, whatever it counts.
async fn keys(balancer: &Balancer, table: &TableName) -> Result<TableKeys, Problem> {
    for data in STORED {
        if let Some(read) = filtered(balancer, table, data, u32::MAX).await? {
            return Ok(read.keys);
        }
    }
    Err(no_rates(table))
}

/// Who is above a rate; `None` if the table stores none.
async fn show(balancer: &Balancer, table: &TableName, above: u32) -> Result<Option<Table>, Problem> {
    filtered(balancer, table, "http_req_rate", above).await
}

/// The rows of a table of which one number is larger; `None` if it does not store that.
async fn filtered(
    balancer: &Balancer,
    table: &TableName,
    data: &str,
    above: u32,
) -> Result<Option<Table>, Problem> {
    let name = table.as_str();
    let words = ["show", "table", name, &format!("data.{data}"), "gt", &above.to_string()];
    let command = Command::of(&words)?;
    let answer = balancer.workers.current().ask(&command).await.map_err(|problem| match problem.code {
        Code::HaproxyReplyUnexpected => {
            problem.hint("ask for fewer: `pointsman traffic limits ENV --min-rate 1000`")
        }
        _ => problem,
    })?;
    if let Some(table) = reply::table(&answer, name) {
        return Ok(Some(table));
    }
    let (first, said) = (answer.lines().next().unwrap_or_default(), first_line(&answer));
    // The second is of a kind of data that this version does not know.
    if [NOT_STORED, "Unknown data type"].iter().any(|text| first.ends_with(text)) {
        return Ok(None);
    }
    if first.ends_with(NO_TABLE) {
        let message = format!("HAProxy has no table `{name}`");
        return Err(compare(message).cause(format!("its answer: {said}")));
    }
    Err(unreadable(&command, &format!("table `{name}`, {said}")))
}

/// HAProxy's answer about data that a table does not have.
const NOT_STORED: &str = "Data type not stored in this table";

fn compare(message: String) -> Problem {
    Problem::new(Code::RateTableUnknown, message)
        .hint("compare `rate_limit_tables` in lb-agent.toml with the `stick-table` lines of haproxy.cfg")
}

fn no_rates(table: &TableName) -> Problem {
    let name = table.as_str();
    compare(format!("the table `{name}` stores no `http_req_rate`, so nobody can be shown of it"))
        .hint("an address is let in again all the same: `pointsman traffic unblock ENV <address>`")
}

fn to_wire(table: &TableName, entry: &TableEntry) -> v1::RateEntry {
    v1::RateEntry {
        host: String::new(),
        table: table.as_str().to_owned(),
        key: entry.key.to_string(),
        rate: entry.rate,
        period_ms: entry.period_ms,
        expires_ms: entry.expires_ms,
    }
}
