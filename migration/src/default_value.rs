//! Whether a column that is added makes PostgreSQL rewrite the table.

use squawk_syntax::ast::{self, AstNode, Constraint, GeneratedAs, GeneratedKind};

use crate::parse::{name, relation};

/// Functions that give one value for a whole statement, so that PostgreSQL 11 and later keeps the default in the
/// catalog (`attmissingval`). `pg_proc.provolatile` of PostgreSQL says `i` or `s` of each; what is not here counts as
/// volatile, because a wrong "quick" stalls visitors and a wrong "rewrite" only asks for a header.
const ONE_VALUE: &[&str] = &[
    "array_fill",
    "concat",
    "current_schema",
    "current_setting",
    "date",
    "date_trunc",
    "decode",
    "format",
    "int4range",
    "int8range",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "lower",
    "make_date",
    "make_interval",
    "make_timestamptz",
    "md5",
    "now",
    "numrange",
    "point",
    "repeat",
    "statement_timestamp",
    "timezone",
    "to_date",
    "to_jsonb",
    "to_timestamp",
    "transaction_timestamp",
    "tsrange",
    "tstzrange",
    "upper",
];

/// Types that stand for an integer with a sequence of its own.
const SERIAL: &[&str] = &["serial", "serial2", "serial4", "serial8", "smallserial", "bigserial"];

/// Whether adding this column rewrites every row.
pub(crate) fn rewrites(add: &ast::AddColumn) -> bool {
    is_serial(add) || add.constraints().any(|constraint| fills_rows(&constraint))
}

/// Whether the column's values are computed from others and stored: it comes with all of them, or not at all.
pub(crate) fn is_stored(add: &ast::AddColumn) -> bool {
    let stored = |constraint: &Constraint| {
        matches!(constraint, Constraint::GeneratedConstraint(generated)
            if matches!(generated.generated_as(), Some(GeneratedAs::GeneratedStored(_))))
    };
    add.constraints().any(|constraint| stored(&constraint) && fills_rows(&constraint))
}

/// Whether the column's type brings a sequence.
pub(crate) fn is_serial(add: &ast::AddColumn) -> bool {
    add.ty().and_then(|ty| name(ty.syntax())).is_some_and(|ty| SERIAL.contains(&ty.as_str()))
}

fn fills_rows(constraint: &Constraint) -> bool {
    match constraint {
        Constraint::DefaultConstraint(default) => default.expr().is_some_and(|value| is_volatile(&value)),
        Constraint::GeneratedConstraint(generated) => match generated.generated_as() {
            // PostgreSQL 18 computes it when it is read, unless it is to be stored; those before 18 take no other.
            Some(GeneratedAs::GeneratedStored(computed)) => {
                matches!(computed.generated_kind(), Some(GeneratedKind::Stored(_)))
            }
            _ => true,
        },
        _ => false,
    }
}

/// Whether a default may differ from row to row.
pub(crate) fn is_volatile(value: &ast::Expr) -> bool {
    // `current_timestamp` and its like are keywords, no calls.
    value.syntax().descendants().filter_map(ast::CallExpr::cast).any(|call| !has_one_value(&call))
}

fn has_one_value(call: &ast::CallExpr) -> bool {
    let Some(function) = call.expr().and_then(|function| relation(function.syntax())) else { return false };
    let built_in = function.schema.is_none_or(|schema| schema == "pg_catalog");
    built_in && ONE_VALUE.contains(&function.name.as_str())
}
