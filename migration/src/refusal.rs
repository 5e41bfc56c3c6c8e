//! Statements that no migration may hold, whatever the phase: they would outlive it, escape it, or take over what the
//! agent itself is in charge of.

use squawk_syntax::ast::{self, AstNode, Stmt};
use squawk_syntax::{SyntaxKind, SyntaxNode};

use crate::parse::{fold, holds, name, relation};
use crate::token::{Kind, Token, lex};
use crate::{Batch, Phase, Relation, body};

/// Why a statement is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) rule: &'static str,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

fn refuse(rule: &'static str, message: impl Into<String>, hint: &'static str) -> Option<Refusal> {
    Some(Refusal { rule, message: message.into(), hint })
}

/// The schema that holds the records.
const OWN_SCHEMA: &str = "pointsman";

/// Settings that the agent sets for each transaction, or that change what the names and strings in a file mean.
const OWN_SETTINGS: &[&str] = &[
    "lock_timeout",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "synchronous_commit",
    "search_path",
    "role",
    "session_authorization",
    "standard_conforming_strings",
    "backslash_quote",
    "client_encoding",
    "default_transaction_read_only",
    "transaction_read_only",
    "transaction_isolation",
    "session_replication_role",
];

const SESSION_HINT: &str =
    "use `SET LOCAL`, which ends with the transaction, or `ALTER ROLE … SET` once, by hand";

/// Why this statement is refused, if it is.
pub(crate) fn of(
    statement: &Stmt,
    tokens: &[Token<'_>],
    phase: Phase,
    batch: Option<&Batch>,
) -> Option<Refusal> {
    own_schema(tokens)
        .or_else(|| transaction(statement))
        .or_else(|| block_that_commits(statement, tokens))
        .or_else(|| session(statement))
        .or_else(|| cluster(statement, tokens))
        .or_else(|| copy(statement))
        .or_else(|| nameless(statement))
        .or_else(|| temporary(statement))
        .or_else(|| verify(statement, phase))
        .or_else(|| batched(statement, batch))
        .or_else(|| reads_itself(statement, batch))
}

fn own_schema(tokens: &[Token<'_>]) -> Option<Refusal> {
    let hidden =
        || tokens.iter().any(|token| body::of(token).is_some_and(|body| names_own_schema(&lex(body).tokens)));
    if !names_own_schema(tokens) && !hidden() {
        return None;
    }
    refuse("own-schema", "schema `pointsman` holds the records of migrations", "leave it to the agent")
}

/// `pointsman.…`, or the name in a statement about schemas.
fn names_own_schema(tokens: &[Token<'_>]) -> bool {
    let about_schemas = tokens.iter().any(|token| token.is("schema"));
    let next = tokens.iter().skip(1).map(|token| token.text).chain([""]);
    tokens.iter().zip(next).any(|(token, next)| is_own_name(token) && (about_schemas || next == "."))
}

fn is_own_name(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted) && fold(token.text) == OWN_SCHEMA
}

fn transaction(statement: &Stmt) -> Option<Refusal> {
    let own = matches!(
        statement,
        Stmt::Begin(_)
            | Stmt::Commit(_)
            | Stmt::Rollback(_)
            | Stmt::SavepointCreate(_)
            | Stmt::ReleaseSavepoint(_)
            | Stmt::PrepareTransaction(_)
            | Stmt::SetTransaction(_)
    );
    let hint = "remove it; `-- pointsman: no-transaction` gives each statement a transaction of its own";
    own.then_some(()).and_then(|()| {
        refuse("own-transaction", "the agent begins and ends the transactions of a migration", hint)
    })
}

/// A `DO` block that ends transactions: PostgreSQL refuses that within one, and outside of one nobody could tell how far it
/// came. Of a procedure only the server knows; the rehearsal sees it.
fn block_that_commits(statement: &Stmt, tokens: &[Token<'_>]) -> Option<Refusal> {
    if !matches!(statement, Stmt::Do(_)) || !tokens.iter().filter_map(body::of).any(commits) {
        return None;
    }
    refuse(
        "own-transaction",
        "this block ends transactions by itself, and after a crash nobody could tell what of it stands",
        "write its loop as `UPDATE` or `DELETE` with `-- pointsman: batch=COLUMN:ROWS`",
    )
}

/// Whether `COMMIT` or `ROLLBACK` stands in a body where a statement begins.
fn commits(body: &str) -> bool {
    let lexed = lex(body);
    lexed.tokens.iter().enumerate().any(|(at, token)| {
        let ends = lexed.tokens.get(at + 1).is_none_or(|next| next.kind == Kind::Semicolon || next.is("and"));
        (token.is("commit") || token.is("rollback")) && ends && begins(&lexed.tokens, at)
    })
}

/// Whether a statement of a body may begin at this token.
fn begins(tokens: &[Token<'_>], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    before.is_none_or(|token| {
        token.kind == Kind::Semicolon || ["begin", "then", "else", "loop"].iter().any(|word| token.is(word))
    })
}

fn session(statement: &Stmt) -> Option<Refusal> {
    const RULE: &str = "session-setting";
    match statement {
        Stmt::Set(set) => own_setting(set).or_else(|| {
            let local = matches!(set.set_scope(), Some(ast::SetScope::LocalScope(_)));
            if local { None } else { refuse(RULE, "this setting would outlive the migration", SESSION_HINT) }
        }),
        Stmt::SetRole(_) | Stmt::ResetRole(_) | Stmt::SetSessionAuth(_) | Stmt::ResetSessionAuth(_) => {
            refuse(
                RULE,
                "the agent's own records are written under its own role",
                "use `ALTER … OWNER TO` for what the migration makes",
            )
        }
        Stmt::Reset(_) | Stmt::Discard(_) => {
            refuse(RULE, "this would undo the settings that the agent works under", "remove it")
        }
        Stmt::Prepare(_) | Stmt::Execute(_) | Stmt::Deallocate(_) => {
            refuse("session-state", "prepared statements outlive the migration", "write the statement itself")
        }
        Stmt::Declare(_) | Stmt::Fetch(_) | Stmt::Move(_) | Stmt::Close(_) => {
            refuse("session-state", "a cursor does not survive a resumed migration", "loop in a `DO` block")
        }
        Stmt::Listen(_) | Stmt::Unlisten(_) | Stmt::Load(_) => {
            refuse("session-state", "this would outlive the migration", "remove it")
        }
        other if calls_set_config(other) => {
            refuse(RULE, "`set_config` changes the session under the agent", SESSION_HINT)
        }
        _ => None,
    }
}

fn own_setting(set: &ast::Set) -> Option<Refusal> {
    let named = set.set_target()?.syntax().descendants().find_map(ast::ConfigParameterRef::cast);
    let setting = match named {
        Some(node) => fold(node.syntax().text().to_string().trim()),
        // `SET SCHEMA` is the search path; time zone and XML option do no harm.
        None if holds(set.syntax(), SyntaxKind::SET_SCHEMA_VALUE) => "search_path".to_owned(),
        None => return None,
    };
    if !OWN_SETTINGS.contains(&setting.as_str()) {
        return None;
    }
    let hint = match setting.as_str() {
        "search_path" => "write the schema before the names",
        "lock_timeout" => "use the header `-- pointsman: lock-timeout=50ms`",
        _ => "remove it",
    };
    refuse("own-setting", format!("`{setting}` is the agent's to set while it migrates"), hint)
}

fn calls_set_config(statement: &Stmt) -> bool {
    statement.syntax().descendants().filter_map(ast::CallExpr::cast).any(|call| {
        call.expr().is_some_and(|function| {
            let text = function.syntax().text().to_string();
            text.rsplit('.').next().is_some_and(|name| fold(name.trim()) == "set_config")
        })
    })
}

fn cluster(statement: &Stmt, tokens: &[Token<'_>]) -> Option<Refusal> {
    let what = match statement {
        Stmt::CreateDatabase(_) | Stmt::AlterDatabase(_) | Stmt::DropDatabase(_) => "databases",
        Stmt::CreateTablespace(_) | Stmt::AlterTablespace(_) | Stmt::DropTablespace(_) => "tablespaces",
        Stmt::AlterSystem(_) | Stmt::Checkpoint(_) => "the server",
        Stmt::CreateSubscription(_) | Stmt::AlterSubscription(_) | Stmt::DropSubscription(_) => {
            "other servers"
        }
        Stmt::DropOwned(_) | Stmt::Reassign(_) => "everything of a role, the records of migrations too",
        // A database is named by its name: on a copy of it, too, the live one is meant.
        Stmt::Grant(_) | Stmt::Revoke(_) | Stmt::CommentOn(_) | Stmt::SecurityLabel(_)
            if names_outer(tokens) =>
        {
            "what a database is to others"
        }
        Stmt::Do(_) if tokens.iter().filter_map(body::of).any(says_outer) => "what a database is to others",
        // On a copy, too, they are those of the live database.
        Stmt::Do(_) if tokens.iter().filter_map(body::of).any(changes_server) => {
            "roles or databases, or what is set for them"
        }
        _ => return None,
    };
    refuse(
        "beyond-database",
        format!("this reaches {what}; a migration stays within its database, as its backup does"),
        "let an administrator do it outside of a release",
    )
}

/// `ON DATABASE`, `ON TABLESPACE`.
fn names_outer(tokens: &[Token<'_>]) -> bool {
    tokens
        .iter()
        .zip(tokens.iter().skip(1))
        .any(|(on, what)| on.is("on") && (what.is("database") || what.is("tablespace")))
}

/// The same in a body, or in a text that it builds.
fn says_outer(body: &str) -> bool {
    let lexed = lex(body);
    names_outer(&lexed.tokens)
        || lexed.tokens.iter().filter(|token| token.kind == Kind::Text).any(|token| {
            let text = body::of(token).unwrap_or_else(|| token.text.trim_matches('\''));
            names_outer(&lex(text).tokens)
        })
}

/// Whether a statement about roles or databases begins in a body, or with a text that it builds.
fn changes_server(body: &str) -> bool {
    let lexed = lex(body);
    (0..lexed.tokens.len()).any(|at| begins(&lexed.tokens, at) && names_server(&lexed.tokens, at))
        || lexed.tokens.iter().filter(|token| token.kind == Kind::Text).any(|token| {
            let text = body::of(token).unwrap_or_else(|| token.text.trim_matches('\''));
            names_server(&lex(text).tokens, 0)
        })
}

/// `ALTER ROLE`, `CREATE DATABASE` and the like at this token; a user's mapping to another server is the database's own.
fn names_server(tokens: &[Token<'_>], at: usize) -> bool {
    let is = |after: usize, words: &[&str]| {
        let token = tokens.get(at.saturating_add(after));
        token.is_some_and(|token| words.iter().any(|word| token.is(word)))
    };
    is(0, &["alter", "create", "drop"])
        && is(1, &["database", "role", "user", "group"])
        && !is(2, &["mapping"])
}

fn copy(statement: &Stmt) -> Option<Refusal> {
    let Stmt::Copy(copy) = statement else { return None };
    let text = copy.syntax().text().to_string().to_ascii_lowercase();
    if text.split(|c: char| !c.is_alphanumeric()).any(|word| matches!(word, "stdin" | "stdout")) {
        return refuse("copy-data", "rows inline after `COPY` are no SQL", "write `INSERT … VALUES`");
    }
    refuse(
        "server-file",
        "`COPY` with a file or program reaches beyond the database",
        "write `INSERT … VALUES`",
    )
}

fn nameless(statement: &Stmt) -> Option<Refusal> {
    match statement {
        Stmt::CreateIndex(create) if create.concurrently_token().is_some() && create.index().is_none() => {
            refuse(
                "index-without-name",
                "an index without a name cannot be found again after a crash",
                "give it a name",
            )
        }
        Stmt::DropIndex(drop) if drop.concurrently_token().is_some() && drop.index_refs().count() > 1 => {
            refuse(
                "several-at-once",
                "`DROP INDEX CONCURRENTLY` takes one index",
                "write a statement for each",
            )
        }
        _ => None,
    }
}

fn temporary(statement: &Stmt) -> Option<Refusal> {
    let (persistence, on_commit) = match statement {
        Stmt::CreateTable(create) => (create.persistence(), create.on_commit()),
        Stmt::CreateTableAs(create) => (create.persistence(), create.on_commit()),
        Stmt::SelectInto(select) => (select.into_clause()?.persistence(), None),
        _ => return None,
    };
    let has = |node: &SyntaxNode, kinds: &[SyntaxKind]| {
        node.descendants_with_tokens().any(|element| kinds.contains(&element.kind()))
    };
    let temporary = has(persistence?.syntax(), &[SyntaxKind::TEMP_KW, SyntaxKind::TEMPORARY_KW]);
    if !temporary || on_commit.is_some_and(|on| has(on.syntax(), &[SyntaxKind::DROP_KW])) {
        return None;
    }
    refuse("session-state", "a temporary table outlives the migration", "add `ON COMMIT DROP`")
}

fn verify(statement: &Stmt, phase: Phase) -> Option<Refusal> {
    let looks = matches!(
        statement,
        Stmt::Select(_)
            | Stmt::CompoundSelect(_)
            | Stmt::ParenSelect(_)
            | Stmt::Values(_)
            | Stmt::Table(_)
            | Stmt::Do(_)
            | Stmt::Explain(_)
            | Stmt::Show(_)
            | Stmt::Set(_)
    );
    if phase != Phase::Verify || looks {
        return None;
    }
    refuse(
        "verify-writes",
        "a verify file only looks: it runs read-only",
        "move it to the expand or contract file",
    )
}

fn batched(statement: &Stmt, batch: Option<&Batch>) -> Option<Refusal> {
    let batch = batch?;
    match statement {
        Stmt::Delete(_) => None,
        Stmt::Update(update) => {
            let mut changed = update.syntax().descendants().filter_map(ast::ColumnTarget::cast);
            if !changed.any(|column| name(column.syntax()).as_ref() == Some(&batch.key)) {
                return None;
            }
            let message = format!(
                "it changes `{}`, along which the batches go: rows would come again and again",
                batch.key
            );
            refuse("batch-key", message, "name another key in the header `batch=COLUMN:ROWS`")
        }
        _ => refuse(
            "batch",
            "a file with the header `batch` holds `UPDATE` and `DELETE` alone",
            "move it to another version",
        ),
    }
}

/// A batch sees what the batches before it changed. What a statement reads of its own table beside the row that it changes
/// must be nothing that it changes, or the values depend on how many rows a batch has.
fn reads_itself(statement: &Stmt, batch: Option<&Batch>) -> Option<Refusal> {
    batch?;
    let (whole, target, alias) = match statement {
        Stmt::Update(update) => (update.syntax(), update.relation_name()?, update.alias()),
        Stmt::Delete(delete) => (delete.syntax(), delete.relation_name()?, delete.alias()),
        _ => return None,
    };
    let target = target.relation_name_ref()?;
    let table = relation(target.syntax())?;
    let same = |other: &ast::RelationNameRef| {
        let is = |other: &Relation| {
            let schemas = (&other.schema, &table.schema);
            other.name == table.name && !matches!(schemas, (Some(other), Some(own)) if other != own)
        };
        other != &target && relation(other.syntax()).as_ref().is_some_and(is)
    };
    let others: Vec<_> = whole.descendants().filter_map(ast::RelationNameRef::cast).filter(same).collect();
    if others.is_empty() {
        return None;
    }
    let reads = match statement {
        Stmt::Update(update) => {
            // The row's own columns may be told by a name that nothing else in the statement has.
            let own = alias.and_then(|alias| name(alias.syntax())).or_else(|| {
                let named = |other: &ast::RelationNameRef| {
                    let item = other.syntax().parent().and_then(ast::RelationFromItem::cast);
                    item.is_some_and(|item| item.alias().is_some())
                };
                others.iter().all(named).then(|| table.name.clone())
            });
            changed_columns_read(update, &others, own.as_deref())
        }
        _ => vec!["its rows".to_owned()],
    };
    let what = reads.first()?;
    refuse(
        "batch-reads-itself",
        format!(
            "it reads {what} of `{table}`, which the batches before have changed: what comes of it depends on their size"
        ),
        "in a version before this one, put what it reads into a table; or leave out `batch`, where few rows are changed",
    )
}

/// Columns that an `UPDATE` changes and reads in other rows than the one it changes; `own` is how that row is called.
fn changed_columns_read(
    update: &ast::Update,
    others: &[ast::RelationNameRef],
    own: Option<&str>,
) -> Vec<String> {
    let targets: Vec<_> = update.syntax().descendants().filter_map(ast::ColumnTarget::cast).collect();
    let changed: Vec<String> = targets.iter().filter_map(|target| name(target.name()?.syntax())).collect();
    let is_target = |at| targets.iter().any(|target| target.syntax().text_range().contains_range(at));
    // Where a name without a qualifier may be another row's.
    let scope = |other: &ast::RelationNameRef| other.syntax().ancestors().find_map(ast::Select::cast);
    let scopes: Vec<_> = others.iter().filter_map(scope).map(|scope| scope.syntax().text_range()).collect();
    let words: Vec<_> = update
        .syntax()
        .descendants_with_tokens()
        .filter_map(|element| element.into_token())
        .filter(|token| !token.kind().is_trivia())
        .collect();
    let read = words.iter().enumerate().filter(|(at, word)| {
        let before = |back: usize| at.checked_sub(back).and_then(|at| words.get(at)).map(|word| word.text());
        if !changed.contains(&fold(word.text())) || is_target(word.text_range()) {
            return false;
        }
        match (before(1), before(2)) {
            (Some("."), Some(qualifier)) => own != Some(fold(qualifier).as_str()),
            _ => scopes.iter().any(|scope| scope.contains_range(word.text_range())),
        }
    });
    read.map(|(_, word)| format!("`{}`", fold(word.text()))).collect()
}
