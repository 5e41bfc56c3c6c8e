//! What messages with a private key show of themselves: where they go, and how long the secret is.

use std::fmt;

use crate::{agent_v1, v1};

impl fmt::Debug for v1::DeployCertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeployCertificateRequest")
            .field("environment", &self.environment)
            .field("path", &self.path)
            .field("drop_names", &self.drop_names)
            .field("pem_bytes", &self.pem.len())
            .finish()
    }
}

impl fmt::Debug for agent_v1::DeployCertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeployCertificateRequest")
            .field("environment", &self.environment)
            .field("host", &self.host)
            .field("epoch", &self.epoch)
            .field("path", &self.path)
            .field("drop_names", &self.drop_names)
            .field("pem_bytes", &self.pem.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_never_shows_its_key() {
        let pem = b"-----BEGIN PRIVATE KEY-----\nMIIsecret\n".to_vec();
        let messages = [
            format!("{:?}", v1::DeployCertificateRequest { pem: pem.clone(), ..Default::default() }),
            format!("{:#?}", agent_v1::DeployCertificateRequest { pem, ..Default::default() }),
        ];
        for shown in messages {
            // Bytes are shown as numbers, text as text: neither.
            assert!(!shown.contains("secret") && !shown.contains("45, 45"), "{shown}");
            assert!(shown.contains("38"), "{shown}");
        }
    }
}
