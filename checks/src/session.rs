//! What a check knows while it is made: values by name, cookies, and what must not be said.

use pointsman_core::Check;

use crate::cookies::Jar;
use crate::place::Place;
use crate::secrets::{self, Redactor};
use crate::spec::Spec;
use crate::template::Values;

/// Values, cookies and secrets of one check, and of those that build on it.
#[derive(Clone, Default)]
pub struct Session {
    /// What names stand for.
    pub values: Values,
    /// Cookies.
    pub jar: Jar,
    /// What is taken out of every text.
    pub redactor: Redactor,
    /// Secrets are among the values: bodies are not repeated.
    pub private: bool,
    /// A request was on its way: a server may have done what it asks for.
    pub sent: bool,
}

impl Session {
    /// Knows nothing yet, and says nothing of this.
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, ..Self::default() }
    }

    /// Reads the secrets of a check into what it knows already.
    pub fn learn(&mut self, spec: &Spec, place: &Place) -> Result<(), String> {
        for (name, file) in &spec.secrets {
            let value = secrets::read(place.grants.secrets.as_deref(), file)?;
            self.redactor.hide(&value);
            self.values.insert(name.clone(), value.as_str().to_owned());
            self.private = true;
        }
        Ok(())
    }

    /// Remembers what an answer gave.
    pub fn capture(&mut self, name: &str, value: String) {
        if self.private {
            self.redactor.hide_captured(&value);
        }
        self.values.insert(name.to_owned(), value);
    }
}

/// The words for a check that is not made because of another.
pub fn not_made(after: &Check) -> String {
    format!("not made: `{}` did not pass", after.name)
}
