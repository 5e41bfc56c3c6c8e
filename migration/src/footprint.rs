//! What a statement does to tables, by its text: class, locks, whether it may be in a transaction, what to look at
//! after a crash. A static table; the rehearsal on a restored copy corrects it.
//!
//! Locks follow PostgreSQL's documentation (13.3.1 and the pages of the commands). Left out on purpose: relations that
//! `LOCK TABLE` cannot take (indexes, sequences, materialized views), the parent table of a dropped index or the
//! other table of a dropped foreign key, which only the catalog knows.

use squawk_syntax::SyntaxKind;
use squawk_syntax::ast::{self, AstNode, Stmt};

use crate::parse::{holds, relation, relation_of_column, says};
use crate::{Class, Lock, LockMode, Probe, Relation, alter_table};

/// What a statement does to tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) class: Class,
    pub(crate) locks: Vec<Lock>,
    /// Whether PostgreSQL takes it within a transaction.
    pub(crate) transactional: bool,
    pub(crate) probe: Probe,
    /// Tables that it makes: nobody has read or written them before.
    pub(crate) made: Vec<Relation>,
    /// Names that are new after it, of tables with a past.
    pub(crate) renamed: Vec<Relation>,
}

impl Footprint {
    /// Within a transaction, without locks.
    pub(crate) fn of(class: Class) -> Self {
        Self {
            class,
            locks: Vec::new(),
            transactional: true,
            probe: Probe::None,
            made: Vec::new(),
            renamed: Vec::new(),
        }
    }

    fn outside(class: Class, probe: Probe) -> Self {
        Self { transactional: false, probe, ..Self::of(class) }
    }

    pub(crate) fn lock(mut self, relation: Option<Relation>, mode: LockMode, only: bool) -> Self {
        self.locks.extend(relation.map(|relation| Lock { relation, mode, only }));
        self
    }

    /// Locks the table that this node names; most nodes name a table without `ONLY`.
    fn locks(self, node: Option<impl AstNode>, mode: LockMode) -> Self {
        let only = node.as_ref().is_some_and(|node| says(node.syntax(), SyntaxKind::ONLY_KW));
        self.lock(node.and_then(|node| relation(node.syntax())), mode, only)
    }

    fn made(mut self, node: Option<impl AstNode>) -> Self {
        self.made.extend(node.and_then(|node| relation(node.syntax())));
        self
    }
}

/// The footprint of a statement, with the strongest lock on each table. `is_new` says of a table whether the script made it before.
pub(crate) fn of(statement: &Stmt, is_new: &dyn Fn(&Relation) -> bool) -> Footprint {
    let mut print = table(statement, is_new);
    let mut strongest: Vec<Lock> = Vec::new();
    for lock in print.locks {
        match strongest.iter_mut().find(|other| other.relation == lock.relation && other.only == lock.only) {
            Some(other) => other.mode = other.mode.max(lock.mode),
            None => strongest.push(lock),
        }
    }
    print.locks = strongest;
    print
}

fn table(statement: &Stmt, is_new: &dyn Fn(&Relation) -> bool) -> Footprint {
    use LockMode::{AccessExclusive, RowExclusive, ShareRowExclusive, ShareUpdateExclusive};
    let metadata = || Footprint::of(Class::Metadata);
    match statement {
        Stmt::AlterTable(alter) => alter_table::footprint(alter, is_new),
        Stmt::CreateTable(create) => create_table(create),
        Stmt::CreateTableAs(create) if create.if_not_exists().is_some() => Footprint::of(Class::Data),
        Stmt::CreateTableAs(create) => Footprint::of(Class::Data).made(create.table_name()),
        Stmt::SelectInto(select) => {
            Footprint::of(Class::Data).made(select.into_clause().and_then(|into| into.table_name()))
        }
        Stmt::CreateIndex(create) => create_index(create, is_new),
        Stmt::DropIndex(drop) => drop_index(drop),
        Stmt::DropTable(drop) => {
            drop.table_name_refs().fold(metadata(), |print, table| print.locks(Some(table), AccessExclusive))
        }
        Stmt::Truncate(truncate) => truncate
            .table_list()
            .into_iter()
            .flat_map(|list| list.table_relation_names())
            .fold(metadata(), |print, table| print.locks(Some(table), AccessExclusive)),
        Stmt::CreateTrigger(create) => metadata()
            .locks(create.on_relation(), ShareRowExclusive)
            .locks(create.from_table(), LockMode::AccessShare),
        Stmt::DropTrigger(drop) => metadata().locks(drop.on_relation(), AccessExclusive),
        Stmt::CreatePolicy(create) => metadata().locks(create.on_table(), AccessExclusive),
        Stmt::AlterPolicy(alter) => metadata().locks(alter.on_table(), AccessExclusive),
        Stmt::DropPolicy(drop) => metadata().locks(drop.on_table(), AccessExclusive),
        Stmt::CreateRule(create) => {
            metadata().locks(create.rule_on().and_then(|on| on.relation_name_ref()), AccessExclusive)
        }
        Stmt::DropRule(drop) => metadata().locks(drop.on_relation(), AccessExclusive),
        Stmt::CreateStatistics(create) => metadata().locks(create.from_table(), ShareUpdateExclusive),
        Stmt::CommentOn(comment) => comment_on(comment),
        Stmt::Reindex(reindex) => reindex_footprint(reindex),
        Stmt::Vacuum(vacuum) => vacuum_footprint(vacuum),
        Stmt::Cluster(cluster) => match cluster.table_name_ref() {
            Some(table) => Footprint::of(Class::Rewrite).locks(Some(table), AccessExclusive),
            None => Footprint::outside(Class::Rewrite, Probe::Repeatable),
        },
        Stmt::Refresh(refresh) if refresh.concurrently_token().is_some() => Footprint::of(Class::Data),
        Stmt::Refresh(_) => Footprint::of(Class::Rewrite),
        Stmt::Insert(insert) => Footprint::of(Class::Data).locks(insert.relation_name_ref(), RowExclusive),
        Stmt::Update(update) => Footprint::of(Class::Data).locks(update.relation_name(), RowExclusive),
        Stmt::Delete(delete) => Footprint::of(Class::Data).locks(delete.relation_name(), RowExclusive),
        Stmt::Merge(merge) => Footprint::of(Class::Data).locks(merge.table_relation_name(), RowExclusive),
        Stmt::CreateMaterializedView(_) | Stmt::Copy(_) => Footprint::of(Class::Data),
        Stmt::Select(_)
        | Stmt::CompoundSelect(_)
        | Stmt::ParenSelect(_)
        | Stmt::Values(_)
        | Stmt::Table(_)
        | Stmt::Do(_)
        | Stmt::Call(_)
        | Stmt::Explain(_) => Footprint::of(Class::Other),
        Stmt::Lock(lock) => lock_table(lock),
        Stmt::Analyze(analyze) => analyze
            .table_and_columns_list()
            .into_iter()
            .flat_map(|list| list.table_and_columnss())
            .fold(Footprint::of(Class::Validate), |print, table| {
                print.locks(table.table_relation_name(), ShareUpdateExclusive)
            }),
        _ => metadata(),
    }
}

fn create_table(create: &ast::CreateTable) -> Footprint {
    let mut print = Footprint::of(Class::Metadata);
    // With IF NOT EXISTS it may be an old one.
    if create.if_not_exists().is_none() {
        print = print.made(create.table_name());
    }
    // Partitions that are there stay free, but for one that holds all other rows: that only the catalog knows.
    let parent = create.partition_of().and_then(|partition| partition.table_name_ref());
    print = print.lock(parent.and_then(|parent| relation(parent.syntax())), LockMode::AccessExclusive, true);
    for parent in create.inherits().into_iter().flat_map(|inherits| inherits.table_name_refs()) {
        print = print.locks(Some(parent), LockMode::ShareUpdateExclusive);
    }
    for table in referenced(create.syntax()) {
        print = print.lock(Some(table), LockMode::ShareRowExclusive, false);
    }
    print
}

/// The tables that foreign keys below this node point to: PostgreSQL locks them as strongly as the table itself.
pub(crate) fn referenced(node: &squawk_syntax::SyntaxNode) -> Vec<Relation> {
    node.descendants()
        .filter_map(|below| match ast::ForeignKeyConstraint::cast(below.clone()) {
            Some(key) => key.table_name_ref(),
            None => ast::ReferencesConstraint::cast(below).and_then(|key| key.table()),
        })
        .filter_map(|table| relation(table.syntax()))
        .collect()
}

fn create_index(create: &ast::CreateIndex, is_new: &dyn Fn(&Relation) -> bool) -> Footprint {
    let table = create.table_relation_name();
    let named = table.as_ref().and_then(|table| relation(table.syntax()));
    if create.concurrently_token().is_none() {
        // Of a partitioned table alone it is but an entry in the catalog; one that is none makes it miss its limit.
        let only = table.as_ref().is_some_and(|table| says(table.syntax(), SyntaxKind::ONLY_KW));
        let quick = only || named.as_ref().is_some_and(is_new);
        let class = if quick { Class::Metadata } else { Class::Rewrite };
        return Footprint::of(class).locks(table, LockMode::Share);
    }
    let probe = match (create.index().and_then(|index| relation(index.syntax())), named) {
        // An index is always in its table's schema.
        (Some(index), Some(table)) => {
            Probe::IndexValid { index: Relation { schema: table.schema.clone(), ..index }, table }
        }
        _ => Probe::None,
    };
    Footprint::outside(Class::Concurrent, probe).locks(table, LockMode::ShareUpdateExclusive)
}

fn drop_index(drop: &ast::DropIndex) -> Footprint {
    if drop.concurrently_token().is_none() {
        return Footprint::of(Class::Metadata);
    }
    let index = drop.index_refs().next().and_then(|index| relation(index.syntax()));
    Footprint::outside(Class::Concurrent, index.map_or(Probe::None, |index| Probe::IndexGone { index }))
}

fn reindex_footprint(reindex: &ast::Reindex) -> Footprint {
    let node = reindex.syntax();
    let concurrently =
        node.descendants_with_tokens().any(|element| element.kind() == SyntaxKind::CONCURRENTLY_KW);
    let whole = [
        SyntaxKind::REINDEX_TARGET_DATABASE,
        SyntaxKind::REINDEX_TARGET_SCHEMA,
        SyntaxKind::REINDEX_TARGET_SYSTEM,
    ]
    .iter()
    .any(|kind| holds(node, *kind));
    let table = node.descendants().find_map(ast::ReindexTargetTable::cast).and_then(|t| t.table_name_ref());
    if concurrently {
        let index = node.descendants().find_map(ast::ReindexTargetIndex::cast).and_then(|t| t.index_ref());
        let index = index.as_ref().map(AstNode::syntax);
        let target = table.as_ref().map(AstNode::syntax).or(index).and_then(relation);
        return Footprint::outside(Class::Concurrent, Probe::Reindexed { relation: target });
    }
    if whole {
        return Footprint::outside(Class::Rewrite, Probe::Repeatable);
    }
    Footprint::of(Class::Rewrite).locks(table, LockMode::Share)
}

fn vacuum_footprint(vacuum: &ast::Vacuum) -> Footprint {
    let full = vacuum.full_token().is_some()
        || vacuum
            .vacuum_option_list()
            .is_some_and(|list| list.syntax().text().to_string().to_ascii_lowercase().contains("full"));
    let (class, mode) = if full {
        (Class::Rewrite, LockMode::AccessExclusive)
    } else {
        (Class::Concurrent, LockMode::ShareUpdateExclusive)
    };
    vacuum
        .table_and_columns_list()
        .into_iter()
        .flat_map(|list| list.table_and_columnss())
        .fold(Footprint::outside(class, Probe::Repeatable), |print, table| {
            print.locks(table.table_relation_name(), mode)
        })
}

/// The ladder takes the locks of the whole transaction first; the statement then finds them held.
fn lock_table(lock: &ast::Lock) -> Footprint {
    let mode = match lock.lock_mode_clause().and_then(|clause| clause.lock_mode()) {
        Some(ast::LockMode::AccessShare(_)) => LockMode::AccessShare,
        Some(ast::LockMode::RowShare(_)) => LockMode::RowShare,
        Some(ast::LockMode::RowExclusive(_)) => LockMode::RowExclusive,
        Some(ast::LockMode::ShareUpdateExclusive(_)) => LockMode::ShareUpdateExclusive,
        Some(ast::LockMode::Share(_)) => LockMode::Share,
        Some(ast::LockMode::ShareRowExclusive(_)) => LockMode::ShareRowExclusive,
        Some(ast::LockMode::Exclusive(_)) => LockMode::Exclusive,
        Some(ast::LockMode::AccessExclusive(_)) | None => LockMode::AccessExclusive,
    };
    lock.relation_list()
        .into_iter()
        .flat_map(|list| list.relation_names())
        .fold(Footprint::of(Class::Other), |print, table| print.locks(Some(table), mode))
}

fn comment_on(comment: &ast::CommentOn) -> Footprint {
    let table = match comment.comment_object() {
        Some(ast::CommentObject::ObjectTable(table)) => {
            table.table_name_ref().and_then(|t| relation(t.syntax()))
        }
        Some(ast::CommentObject::ObjectColumn(column)) => {
            column.syntax().children().find_map(|path| relation_of_column(&path))
        }
        _ => None,
    };
    Footprint::of(Class::Metadata).lock(table, LockMode::ShareUpdateExclusive, true)
}
