//! What `ALTER TABLE` does: the strongest lock and the heaviest class of its actions.

use squawk_syntax::SyntaxKind;
use squawk_syntax::ast::{self, AlterColumnOption, AlterTableAction, AstNode, Constraint};

use crate::footprint::{Footprint, referenced};
use crate::parse::{holds, relation, says};
use crate::{Class, Lock, LockMode, Probe, Relation, default_value};

/// What one action needs.
struct Need {
    mode: LockMode,
    class: Class,
    /// Other tables that it locks.
    others: Vec<Lock>,
}

impl Need {
    fn new(mode: LockMode, class: Class) -> Self {
        Self { mode, class, others: Vec::new() }
    }

    fn and(mut self, relation: Option<Relation>, mode: LockMode) -> Self {
        self.others.extend(relation.map(|relation| Lock { relation, mode, only: false }));
        self
    }
}

/// The footprint of `ALTER TABLE`.
pub(crate) fn footprint(alter: &ast::AlterTable, is_new: &dyn Fn(&Relation) -> bool) -> Footprint {
    let Some(node) = alter.table_relation_name() else { return Footprint::of(Class::Rewrite) };
    let Some(table) = relation(node.syntax()) else { return Footprint::of(Class::Rewrite) };
    // Partitions that are there stay free of one that comes or goes.
    let is_about_one = |action: &AlterTableAction| {
        matches!(action, AlterTableAction::AttachPartition(_) | AlterTableAction::DetachPartition(_))
    };
    let only =
        says(node.syntax(), SyntaxKind::ONLY_KW) || alter.actions().all(|action| is_about_one(&action));
    let mut print = Footprint::of(Class::Metadata);
    let mut mode = LockMode::AccessShare;
    let mut others = Vec::new();
    for action in alter.actions() {
        let need = need(&action, is_new);
        mode = mode.max(need.mode);
        print.class = heavier(print.class, need.class);
        others.extend(need.others);
        if let AlterTableAction::TableRenameTo(rename) = &action {
            // A table keeps its schema when it is renamed.
            let name = rename.table_name().and_then(|name| relation(name.syntax()));
            let name = name.map(|name| Relation { schema: table.schema.clone(), ..name });
            if is_new(&table) { print.made.extend(name) } else { print.renamed.extend(name) }
        }
        if let AlterTableAction::DetachPartition(detach) = &action
            && outside_of_transactions(detach)
        {
            print.transactional = false;
            print.class = Class::Concurrent;
            print.probe = detached(&table, detach);
        }
    }
    if is_new(&table) && print.class == Class::Rewrite {
        print.class = Class::Metadata;
    }
    print.locks.push(Lock { relation: table, mode, only });
    print.locks.extend(others);
    print
}

fn heavier(one: Class, other: Class) -> Class {
    let weight = |class| match class {
        Class::Rewrite => 2,
        Class::Validate => 1,
        _ => 0,
    };
    if weight(other) > weight(one) { other } else { one }
}

fn need(action: &AlterTableAction, is_new: &dyn Fn(&Relation) -> bool) -> Need {
    use Class::{Metadata, Rewrite, Validate};
    use LockMode::{AccessExclusive, ShareRowExclusive, ShareUpdateExclusive};
    match action {
        AlterTableAction::ValidateConstraint(_) => Need::new(ShareUpdateExclusive, Validate),
        AlterTableAction::ClusterOn(_)
        | AlterTableAction::SetWithoutCluster(_)
        | AlterTableAction::SetOptions(_)
        | AlterTableAction::ResetOptions(_) => Need::new(ShareUpdateExclusive, Metadata),
        AlterTableAction::EnableTrigger(_)
        | AlterTableAction::EnableReplicaTrigger(_)
        | AlterTableAction::EnableAlwaysTrigger(_)
        | AlterTableAction::DisableTrigger(_) => Need::new(ShareRowExclusive, Metadata),
        AlterTableAction::AddColumn(add) => add_column(add),
        AlterTableAction::AddConstraint(add) => add_constraint(add),
        AlterTableAction::AlterColumn(alter) => alter_column(alter),
        AlterTableAction::AttachPartition(attach) => {
            let child = attach.table_name_ref().and_then(|name| relation(name.syntax()));
            let class = if child.as_ref().is_some_and(is_new) { Metadata } else { Rewrite };
            Need::new(ShareUpdateExclusive, class).and(child, AccessExclusive)
        }
        AlterTableAction::DetachPartition(detach) => {
            let child = detach.table_name_ref().and_then(|name| relation(name.syntax()));
            let mode = if detach.detach_partition_option().is_some() {
                ShareUpdateExclusive
            } else {
                AccessExclusive
            };
            Need::new(mode, Metadata).and(child, AccessExclusive)
        }
        AlterTableAction::InheritTable(inherit) => {
            let parent = inherit.table_name_ref().and_then(|name| relation(name.syntax()));
            Need::new(AccessExclusive, Metadata).and(parent, ShareUpdateExclusive)
        }
        AlterTableAction::SetTablespace(_)
        | AlterTableAction::SetLogged(_)
        | AlterTableAction::SetUnlogged(_)
        | AlterTableAction::SetAccessMethod(_)
        | AlterTableAction::SplitPartition(_)
        | AlterTableAction::MergePartitions(_) => Need::new(AccessExclusive, Rewrite),
        _ => Need::new(AccessExclusive, Metadata),
    }
}

fn add_column(add: &ast::AddColumn) -> Need {
    let class = if default_value::rewrites(add) || add.constraints().any(|c| reads_table(&c)) {
        Class::Rewrite
    } else {
        Class::Metadata
    };
    with_referenced(Need::new(LockMode::AccessExclusive, class), add.syntax())
}

fn with_referenced(need: Need, node: &squawk_syntax::SyntaxNode) -> Need {
    referenced(node).into_iter().fold(need, |need, table| need.and(Some(table), LockMode::ShareRowExclusive))
}

/// Whether adding the constraint together with its column reads every row or builds an index.
pub(crate) fn reads_table(constraint: &Constraint) -> bool {
    matches!(
        constraint,
        Constraint::CheckConstraint(_)
            | Constraint::UniqueConstraint(_)
            | Constraint::PrimaryKeyConstraint(_)
            | Constraint::ExcludeConstraint(_)
    )
}

fn add_constraint(add: &ast::AddConstraint) -> Need {
    use LockMode::{AccessExclusive, ShareRowExclusive};
    let later = holds(add.syntax(), SyntaxKind::NOT_VALID) || holds(add.syntax(), SyntaxKind::NOT_ENFORCED);
    let class = if later || is_using_index(add) { Class::Metadata } else { Class::Rewrite };
    match add.constraint() {
        Some(Constraint::ForeignKeyConstraint(_)) => {
            with_referenced(Need::new(ShareRowExclusive, class), add.syntax())
        }
        _ => Need::new(AccessExclusive, class),
    }
}

/// Whether the constraint takes an index that is there.
pub(crate) fn is_using_index(add: &ast::AddConstraint) -> bool {
    holds(add.syntax(), SyntaxKind::USING_INDEX_NAME)
}

fn alter_column(alter: &ast::AlterColumn) -> Need {
    use LockMode::{AccessExclusive, ShareUpdateExclusive};
    match alter.option() {
        Some(
            AlterColumnOption::SetType(_)
            | AlterColumnOption::SetExpression(_)
            | AlterColumnOption::SetNotNull(_),
        ) => Need::new(AccessExclusive, Class::Rewrite),
        Some(
            AlterColumnOption::SetStatistics(_)
            | AlterColumnOption::SetOptions(_)
            | AlterColumnOption::SetOptionsList(_)
            | AlterColumnOption::ResetOptions(_),
        ) => Need::new(ShareUpdateExclusive, Class::Metadata),
        _ => Need::new(AccessExclusive, Class::Metadata),
    }
}

fn outside_of_transactions(detach: &ast::DetachPartition) -> bool {
    matches!(detach.detach_partition_option(), Some(ast::DetachPartitionOption::DetachConcurrently(_)))
}

fn detached(parent: &Relation, detach: &ast::DetachPartition) -> Probe {
    match detach.table_name_ref().and_then(|name| relation(name.syntax())) {
        Some(partition) => Probe::PartitionDetached { parent: parent.clone(), partition },
        None => Probe::None,
    }
}
