//! Calling the coordinator.

use std::path::PathBuf;
use std::time::Duration;

use pointsman_chassis::tls::{self, ChannelLimits, Credentials};
use pointsman_core::{Code, EnvironmentName, PeerName, Problem, Role};
use pointsman_proto::v1::coordinator_client::CoordinatorClient;
use pointsman_proto::{LONGEST_CHECKS, MAX_MESSAGE_BYTES};
use tonic::transport::Channel;

use crate::config;
use crate::out::Out;

/// Bound on one answer. The coordinator's own looks at its agents take at most a few seconds.
const ANSWER: Duration = Duration::from_secs(30);

/// What every command calls with.
pub struct Session {
    file: Option<PathBuf>,
}

/// A coordinator, and how it is named to people.
pub struct Caller {
    /// The client.
    pub client: CoordinatorClient<Channel>,
    address: String,
    /// The name in the certificate that it is called with, and when that ends, in seconds since 1970.
    pub own: (String, i64),
}

impl Session {
    /// Calls with this configuration file, or with the first that is found.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// The coordinator of an environment.
    pub fn caller(&self, environment: &EnvironmentName) -> Result<Caller, Problem> {
        let (found, pki) = config::find(self.file.as_deref(), environment)?;
        let credentials = Credentials::load(pki)?;
        let own = credentials.name();
        let ends = (own.name.clone(), credentials.end_to_tell());
        if own.environment != *environment {
            return Err(Problem::new(
                Code::NotAllowed,
                format!("the certificate is for environment `{}`, not `{environment}`", own.environment),
            )
            .hint("a certificate is good for one environment: name the right one in the configuration"));
        }
        let expected =
            PeerName::new(&own.trust_domain, environment.clone(), Role::Coordinator, found.name.0.as_str())
                .map_err(|error| {
                Problem::new(Code::ConfigInvalid, "the coordinator's name cannot stand in a certificate")
                    .because(&error)
            })?;
        let channel = tls::channel(credentials, &found.coordinator, &expected, ChannelLimits::default())?;
        let client = CoordinatorClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Caller { client, address: found.coordinator, own: ends })
    }
}

impl Caller {
    /// The problem behind a failed call.
    pub fn explain(&self, status: &tonic::Status) -> Problem {
        let problem =
            tls::explain(status, Code::CoordinatorUnreachable, &format!("coordinator `{}`", self.address));
        match problem.code {
            Code::CoordinatorUnreachable => problem.hint("on the coordinator: `systemctl status pointsman-coordinator`; a release under way goes on by itself"),
            _ => problem,
        }
    }

    /// Waits for an answer, with a bound.
    pub async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Problem> {
        self.answer_within(ANSWER, call).await
    }

    /// The same for checks that are made now: each may take its own time, and those of one place follow one another.
    pub async fn answer_of_checks<T>(
        &self,
        out: &Out,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Problem> {
        let mut answer = std::pin::pin!(self.answer_within(LONGEST_CHECKS.saturating_add(ANSWER), call));
        if let Ok(answer) = tokio::time::timeout(ANSWER, &mut answer).await {
            return answer;
        }
        let (so_far, longest) = (ANSWER.as_secs(), LONGEST_CHECKS.as_secs() / 60);
        out.say(&format!(
            "no answer for {so_far} s: the checks of one place follow one another, and together they get up to {longest} min"
        ));
        answer.await
    }

    /// The same for a call that may take longer, or must not.
    pub async fn answer_within<T>(
        &self,
        bound: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(bound, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.explain(&status)),
            Err(_) => Err(Problem::new(
                Code::CoordinatorUnreachable,
                format!("no answer from coordinator `{}` within {} s", self.address, bound.as_secs()),
            )
            .hint("on the coordinator: `systemctl status pointsman-coordinator`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    /// Whether an answer that comes after so many seconds is waited for.
    async fn comes<T>(
        after_s: u64,
        wait: impl AsyncFnOnce(&Caller, Answering) -> Result<T, Problem>,
    ) -> bool {
        let client = CoordinatorClient::new(Channel::from_static("http://127.0.0.1:1").connect_lazy());
        let caller = Caller { client, address: "c:1".to_owned(), own: (String::new(), 0) };
        let answering = async move {
            tokio::time::sleep(Duration::from_secs(after_s)).await;
            Ok(tonic::Response::new(()))
        };
        wait(&caller, Box::pin(answering)).await.is_ok()
    }

    type Answering =
        std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<()>, tonic::Status>> + Send>>;

    #[tokio::test(start_paused = true)]
    async fn checks_are_waited_for_as_long_as_the_coordinator_waits_for_them() {
        let out = Out::new(Output::Plain, None);
        let longest_s = LONGEST_CHECKS.as_secs();
        for (after_s, in_time) in [(1, true), (31, true), (longest_s + 5, true), (longest_s + 31, false)] {
            let came = comes(after_s, async |caller, call| caller.answer_of_checks(&out, call).await).await;
            assert_eq!(came, in_time, "{after_s} s");
        }
        assert!(!comes(31, async |caller, call| caller.answer(call).await).await);
    }
}
