//! The name of a table, index or view as the catalog has it.

use std::fmt;

/// A relation's real name: folded and unquoted, as it stands in `pg_class`. No schema: as `search_path` finds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// Schema, where the statement names one.
    pub schema: Option<String>,
    /// Name within the schema.
    pub name: String,
}

impl Relation {
    /// A relation found by `search_path`.
    pub fn unqualified(name: impl Into<String>) -> Self {
        Self { schema: None, name: name.into() }
    }

    /// The name as SQL, always quoted: safe to put into a statement or into `to_regclass`.
    pub fn as_sql(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.name)),
            None => quoted(&self.name),
        }
    }

    /// Whether both are the same relation, as far as names tell: without a schema it is in `public`, where nobody set another
    /// search path. A rehearsal sees what is lost where this is wrong.
    pub fn is(&self, other: &Relation) -> bool {
        fn schema(relation: &Relation) -> &str {
            relation.schema.as_deref().unwrap_or("public")
        }
        self.name == other.name && schema(self) == schema(other)
    }

    /// Whether both may be the same relation: equal names, and no two schemas that differ.
    pub fn may_be(&self, other: &Relation) -> bool {
        self.name == other.name
            && (self.schema.is_none() || other.schema.is_none() || self.schema == other.schema)
    }
}

/// An identifier in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// For people: `schema.name`, not quoted.
impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_is_quoted() {
        let odd = Relation { schema: Some("a b".into()), name: "x\"; DROP".into() };
        assert_eq!(odd.as_sql(), "\"a b\".\"x\"\"; DROP\"");
        assert_eq!(Relation::unqualified("t").as_sql(), "\"t\"");
    }

    #[test]
    fn an_unqualified_name_may_be_in_any_schema() {
        let bare = Relation::unqualified("t");
        let one = Relation { schema: Some("one".into()), name: "t".into() };
        let two = Relation { schema: Some("two".into()), name: "t".into() };
        assert!(bare.may_be(&one) && two.may_be(&bare) && one.may_be(&one));
        assert!(!one.may_be(&two) && !bare.may_be(&Relation::unqualified("u")));
        let public = Relation { schema: Some("public".into()), name: "t".into() };
        assert!(bare.is(&public) && bare.is(&bare) && !bare.is(&one) && !public.is(&one));
    }
}
