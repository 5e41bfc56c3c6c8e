//! What would stall visitors, or fail at the next restore, though it breaks no version.

use std::collections::BTreeSet;

use squawk_syntax::ast::{self, AlterColumnOption, AlterTableAction, AstNode, Constraint, Stmt};

use crate::parse::name;
use crate::routine::{self, Routine};
use crate::scene::{Scene, Told, scenes, told};
use crate::{Class, Finding, LockMode, Phase, Relation, Script, default_value, object};

const REWRITE_HINT: &str =
    "where it is meant: `-- pointsman: allow-rewrite`, and a rehearsal within its limit";

/// What would stall visitors, or fail at the next restore, though it breaks no version.
pub fn dangerous(script: &Script) -> Vec<Finding> {
    dangerous_after(script, &[])
}

/// The same for a script that runs after others in one release, whose new tables are given: they hold no rows yet.
pub fn dangerous_after(script: &Script, made_before: &[Relation]) -> Vec<Finding> {
    if script.phase == Phase::Verify {
        return Vec::new();
    }
    let scenes = scenes(script, made_before);
    let used = routine::used_while_restoring(&scenes);
    let mut held = Held::default();
    let mut findings = Vec::new();
    for scene in &scenes {
        let mut told = stalls(scene, script.headers.allow_rewrite);
        told.extend(later(scene));
        told.extend(unsafe_routine(scene, &used));
        told.extend(held.data(scene));
        findings.extend(told.iter().map(|told| told.finding(script, scene.statement)));
    }
    // A file that takes a version back may well say so.
    findings.extend(script.way_down.clone().filter(|_| script.phase != Phase::Down));
    findings.sort();
    findings
}

/// Work on a whole table while visitors wait.
fn stalls(scene: &Scene<'_>, allow_rewrite: bool) -> Vec<Told> {
    let rewrites = scene.statement.class == Class::Rewrite && !scene.is_harmless() && !allow_rewrite;
    let node = scene.tree.syntax();
    let one = |rule, message: &str, hint: &str| vec![told(node, rule, message, hint)];
    match &scene.tree {
        Stmt::AlterTable(alter) if rewrites => {
            alter.actions().filter_map(|action| action_stalls(scene, &action)).collect()
        }
        Stmt::CreateIndex(_) if rewrites => one(
            "require-concurrent-index-creation",
            "writes wait until the index is built",
            "`CREATE INDEX CONCURRENTLY`; it becomes a segment of its own. On a partitioned table `CREATE INDEX … ON ONLY` it, \
             CONCURRENTLY on each partition, then `ALTER INDEX … ATTACH PARTITION`",
        ),
        Stmt::Reindex(_) if rewrites => one(
            "require-concurrent-reindex",
            "writes wait until the index is built",
            "`REINDEX … CONCURRENTLY`",
        ),
        Stmt::Refresh(_) if rewrites => one(
            "refresh-at-once",
            "readers wait until the view is filled",
            "`REFRESH MATERIALIZED VIEW CONCURRENTLY`, which needs a unique index",
        ),
        Stmt::Vacuum(_) | Stmt::Cluster(_) if rewrites => {
            one("table-rewrite", "nobody reads or writes the table while it is written anew", REWRITE_HINT)
        }
        Stmt::DropIndex(drop) if drop.concurrently_token().is_none() => one(
            "require-concurrent-index-deletion",
            "the index's table is locked against everybody, and no ladder can take a lock that only the catalog knows",
            "`DROP INDEX CONCURRENTLY`; it becomes a segment of its own",
        ),
        Stmt::AlterTable(alter) => alter.actions().filter_map(|action| detaches(&action)).collect(),
        _ => Vec::new(),
    }
}

fn detaches(action: &AlterTableAction) -> Option<Told> {
    let AlterTableAction::DetachPartition(detach) = action else { return None };
    if detach.detach_partition_option().is_some() {
        return None;
    }
    let hint = "`DETACH PARTITION … CONCURRENTLY`; it becomes a segment of its own";
    Some(told(
        detach.syntax(),
        "require-concurrent-partition-detach",
        "the whole table is locked against everybody",
        hint,
    ))
}

fn action_stalls(scene: &Scene<'_>, action: &AlterTableAction) -> Option<Told> {
    let node = action.syntax();
    match action {
        AlterTableAction::AddColumn(add) => column_stalls(add),
        AlterTableAction::AlterColumn(alter) => match alter.option()? {
            AlterColumnOption::SetType(_) => {
                let message = "every row is written anew, unless the old type is binary compatible";
                Some(told(node, "changing-column-type", message, REWRITE_HINT))
            }
            AlterColumnOption::SetExpression(_) => {
                Some(told(node, "table-rewrite", "every row is written anew", REWRITE_HINT))
            }
            AlterColumnOption::SetNotNull(_) => {
                let hint = "`ADD CONSTRAINT … CHECK (… IS NOT NULL) NOT VALID`, `VALIDATE CONSTRAINT`, then this: \
                            PostgreSQL trusts the valid check; say so with `-- pointsman: allow-rewrite`";
                Some(told(node, "not-null-scan", "every row is read while nobody can read or write", hint))
            }
            _ => None,
        },
        AlterTableAction::AddConstraint(_) => constraint_stalls(action),
        AlterTableAction::AttachPartition(attach) => {
            let child = attach.table_name_ref().and_then(|table| crate::parse::relation(table.syntax()));
            if child.is_some_and(|child| scene.is_new(&child)) {
                return None;
            }
            let hint = "first a CHECK on it that says the same as the bounds, `NOT VALID`, then `VALIDATE`; \
                        `-- pointsman: allow-rewrite`";
            Some(told(node, "attach-scan", "every row of the new partition is read while it is locked", hint))
        }
        AlterTableAction::SetTablespace(_)
        | AlterTableAction::SetLogged(_)
        | AlterTableAction::SetUnlogged(_)
        | AlterTableAction::SetAccessMethod(_)
        | AlterTableAction::SplitPartition(_)
        | AlterTableAction::MergePartitions(_) => Some(told(
            node,
            "table-rewrite",
            "the whole table is written anew while nobody can read it",
            REWRITE_HINT,
        )),
        _ => None,
    }
}

fn column_stalls(add: &ast::AddColumn) -> Option<Told> {
    let column = add.column_name().and_then(|column| name(column.syntax())).unwrap_or_default();
    if default_value::rewrites(add) {
        let message =
            format!("every row is written anew, because `{column}` gets a value of its own in each");
        let hint = if default_value::is_stored(add) {
            "a stored column cannot come in steps: where the table is small, `-- pointsman: allow-rewrite`; else a plain \
             column, a trigger that fills it, and old rows in batches (`-- pointsman: batch=id:5000`); or, from PostgreSQL 18 \
             on, `VIRTUAL`"
        } else {
            "add the column without it, set the default in a statement of its own, fill old rows in batches \
             (`-- pointsman: batch=id:5000`)"
        };
        return Some(told(add.syntax(), "adding-field-with-default", message, hint));
    }
    let constraint = add.constraints().find(crate::alter_table::reads_table)?;
    let message =
        format!("the constraint of `{column}` is built or checked over the whole table under its lock");
    let hint = "add the column alone; then the index concurrently, or the check `NOT VALID`";
    Some(told(constraint.syntax(), "constraint-with-column", message, hint))
}

fn constraint_stalls(action: &AlterTableAction) -> Option<Told> {
    let AlterTableAction::AddConstraint(add) = action else { return None };
    let breaks = crate::breaking::constraint_at_once(add)?;
    let message = match add.constraint()? {
        Constraint::UniqueConstraint(_)
        | Constraint::PrimaryKeyConstraint(_)
        | Constraint::ExcludeConstraint(_) => "an index is built while nobody can read or write",
        _ => "every row is read while writes wait",
    };
    Some(Told { message: message.to_owned(), ..breaks })
}

/// What is quick and still worth a thought.
fn later(scene: &Scene<'_>) -> Option<Told> {
    let node = scene.tree.syntax();
    let one = |rule, message: &str, hint: &str| Some(told(node, rule, message, hint));
    match &scene.tree {
        Stmt::AlterTable(alter) if !scene.is_harmless() => alter.actions().find_map(|action| match action {
            AlterTableAction::DropConstraint(drop) if !adds_constraint(alter) => Some(told(
                drop.syntax(),
                "ban-drop-constraint",
                "`ON CONFLICT` of the version that serves may name what this constraint gives",
                "if it is unique or a key, move it to a contract file",
            )),
            AlterTableAction::AlterColumn(alter) => match alter.option()? {
                AlterColumnOption::DropNotNull(_) => Some(told(
                    alter.syntax(),
                    "ban-drop-not-null",
                    "the version that serves may not expect NULL",
                    "write NULL only once it no longer runs",
                )),
                _ => None,
            },
            _ => None,
        }),
        Stmt::CreateRole(_)
        | Stmt::AlterRole(_)
        | Stmt::DropRole(_)
        | Stmt::CreateUser(_)
        | Stmt::AlterUser(_)
        | Stmt::DropUser(_)
        | Stmt::CreateGroup(_)
        | Stmt::AlterGroup(_)
        | Stmt::DropGroup(_) => one(
            "role",
            "roles belong to the whole server: neither the backup nor the rehearsal holds them",
            "let an administrator do it outside of a release",
        ),
        Stmt::Update(update)
            if scene.statement.class == Class::Data && update.where_clause_or_current_of().is_none() =>
        {
            every_row(scene)
        }
        Stmt::Delete(delete)
            if scene.statement.class == Class::Data && delete.where_clause_or_current_of().is_none() =>
        {
            every_row(scene)
        }
        _ => None,
    }
}

fn adds_constraint(alter: &ast::AlterTable) -> bool {
    alter.actions().any(|action| matches!(action, AlterTableAction::AddConstraint(_)))
}

fn every_row(scene: &Scene<'_>) -> Option<Told> {
    if scene.is_harmless() {
        return None;
    }
    let hint = "in a file of its own with `-- pointsman: batch=id:5000`";
    Some(told(
        scene.tree.syntax(),
        "every-row-at-once",
        "every row stays locked until the whole transaction ends",
        hint,
    ))
}

fn unsafe_routine(scene: &Scene<'_>, used: &BTreeSet<String>) -> Option<Told> {
    let routine = Routine::of(&scene.tree)?;
    if routine.has_search_path || !routine.has_text_body {
        return None;
    }
    let why = if routine.is_definer {
        "runs with its owner's rights on whatever the caller's `search_path` finds"
    } else if routine.returns_trigger {
        "is run by whoever writes the table, a restore too, and finds nothing when `search_path` is empty"
    } else if used.contains(&routine.name.name) {
        "is run when the dump is restored, where `search_path` is empty, and finds nothing"
    } else {
        return None;
    };
    let message = format!("function `{}` {why}", routine.name);
    let hint = "add `SET search_path = pg_catalog, public` (its schemas) to the function";
    Some(told(scene.tree.syntax(), "function-search-path", message, hint))
}

/// Tables that a transaction has locked against readers, while it goes on.
#[derive(Default)]
struct Held {
    segment: usize,
    table: Option<Relation>,
}

impl Held {
    /// Rows changed while an earlier statement's lock keeps everybody out.
    fn data(&mut self, scene: &Scene<'_>) -> Option<Told> {
        if self.segment != scene.segment {
            *self = Held { segment: scene.segment, table: None };
        }
        let found = self.table.as_ref().filter(|_| scene.statement.class == Class::Data).and_then(|held| {
            let small = matches!(&scene.tree, Stmt::Insert(insert) if !is_query(insert));
            let new = object::target(&scene.tree).is_some_and(|table| scene.is_new(&table));
            if small || new {
                return None;
            }
            let message = format!("rows are changed while `{held}` is locked against everybody");
            let hint = "put it into a version of its own; large changes with `-- pointsman: batch=id:5000`";
            Some(told(scene.tree.syntax(), "data-under-lock", message, hint))
        });
        let strong = scene.statement.locks.iter().find(|lock| lock.mode == LockMode::AccessExclusive);
        if let Some(lock) = strong {
            self.table.get_or_insert_with(|| lock.relation.clone());
        }
        found
    }
}

fn is_query(insert: &ast::Insert) -> bool {
    use squawk_syntax::SyntaxKind::{FROM_CLAUSE, VALUES};
    let node = insert.syntax();
    crate::parse::holds(node, FROM_CLAUSE) || !crate::parse::holds(node, VALUES)
}
