//! Why a check did not pass: it saw a failure, or it could not see. What cannot be seen is never taken for either.

/// What kept a check from passing, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// What it asks for is not so.
    Failed(String),
    /// Who would know cannot be asked, or does not know.
    Blind(String),
}

impl Miss {
    /// What there is to say of it.
    pub fn text(&self) -> &str {
        let (Self::Failed(text) | Self::Blind(text)) = self;
        text
    }

    /// The same, said differently.
    pub fn said(self, say: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Failed(text) => Self::Failed(say(text)),
            Self::Blind(text) => Self::Blind(say(text)),
        }
    }
}

/// What the server under test answers wrongly, or not at all, is its failure.
impl From<String> for Miss {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}
