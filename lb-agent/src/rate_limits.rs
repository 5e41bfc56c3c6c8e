//! Looking into HAProxy's tables of rate limits, and taking one address out of them. The limits themselves stand in
//! HAProxy's configuration.

use std::net::IpAddr;

use pointsman_chassis::agent_service::Rule;
use pointsman_core::{Code, Problem};
use pointsman_proto::{agent_v1, convert, v1};

use crate::balancer::Balancer;
use crate::command::Command;
use crate::config::TableName;
use crate::reply::{self, Table, TableEntry, TableKey};
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
            Ok(read) => {
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
    if unread.len() == tables.len() {
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
            match show(balancer, table, u32::MAX).await?.keys.key_of(address) {
                Some(key) => balancer.workers.clear_key(table.as_str(), key).await,
                None => Ok(()),
            }
        };
        let said = forgotten.await;
        done = done.and(said);
    }
    done
}

async fn show(balancer: &Balancer, table: &TableName, above: u32) -> Result<Table, Problem> {
    let name = table.as_str();
    let command = Command::of(&["show", "table", name, "data.http_req_rate", "gt", &above.to_string()])?;
    let answer = balancer.workers.current().ask(&command).await.map_err(|problem| match problem.code {
        Code::HaproxyReplyUnexpected => {
            problem.hint("ask for fewer: `pointsman traffic limits ENV --min-rate 1000`")
        }
        _ => problem,
    })?;
    if let Some(table) = reply::table(&answer, name) {
        return Ok(table);
    }
    let unknown = [NO_TABLE, "Data type not stored in this table"];
    if unknown.iter().any(|text| answer.lines().next().is_some_and(|line| line.ends_with(text))) {
        let message = format!("HAProxy has no table `{name}` of `http_req_rate`");
        return Err(Problem::new(Code::RateTableUnknown, message)
            .cause(format!("its answer: {}", first_line(&answer)))
            .hint(
                "compare `rate_limit_tables` in lb-agent.toml with the `stick-table` lines of haproxy.cfg",
            ));
    }
    let why = format!("table `{name}`, {}", first_line(&answer));
    Err(unreadable(&command, &why))
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
