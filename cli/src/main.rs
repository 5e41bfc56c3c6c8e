//! `pointsman`: the operator's command. A thin client of the coordinator's API: whatever it can do, CI can do by gRPC.

mod args;
mod client;
mod commands;
mod config;
mod exit;
mod follow;
mod init;
mod out;
mod publish;
mod render;

use clap::Parser as _;
use pointsman_core::Problem;

use crate::args::{Arguments, ConfigVerb, Verb};
use crate::exit::Exit;
use crate::out::Out;

fn main() -> std::process::ExitCode {
    pointsman_chassis::tls::install_crypto();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    let out = Out::new(arguments.output, arguments.verb.environment());
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new(pointsman_core::Code::UsageWrong, "cannot start").because(&error));
    let ended = ended.and_then(|runtime| runtime.block_on(run(arguments, &out)));
    let exit = ended.unwrap_or_else(|problem| {
        let exit = Exit::of_problem(&problem);
        out.problem(&problem, exit);
        exit
    });
    exit.into()
}

/// Help and version, which were asked for; or a command line that cannot be, as people and programs read it.
fn not_understood(error: &clap::Error) -> std::process::ExitCode {
    // Where nobody reads, nothing can be said, and how the command ends is the same.
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Done.into();
    }
    if args::wants_json(std::env::args_os().skip(1)) {
        let said = error.to_string();
        let (message, rest) = said.split_once('\n').unwrap_or((&said, ""));
        let message = message.trim_start_matches("error: ").trim_end_matches(':');
        let causes = rest.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        let causes = causes.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
        let problem = Problem::new(pointsman_core::Code::UsageWrong, message).hint("`pointsman --help`");
        let problem = causes.fold(problem, Problem::cause);
        Out::new(args::Output::Json, None).error_document(&problem, Exit::Usage);
    }
    Exit::Usage.into()
}

async fn run(arguments: Arguments, out: &Out) -> Result<Exit, Problem> {
    use crate::commands as run;
    let session = client::Session::new(arguments.config);
    if out.document_of_checklist() && !matches!(arguments.verb, Verb::Checklist(_)) {
        let message = "`-o md` and `-o junit` are forms of the checklist alone";
        return Err(Problem::new(pointsman_core::Code::UsageWrong, message)
            .hint("ask for one of `auto`, `tty`, `plain` and `json`"));
    }
    match arguments.verb {
        Verb::Init(init) => init::init(&init, out),
        Verb::Explain { code } => run::explain(&code, out),
        Verb::Plan(plan) => run::plan(&session, &plan, out).await,
        Verb::Deploy(deploy) => run::deploy(&session, &deploy, out).await,
        Verb::Status(status) => run::status(&session, &status, out).await,
        Verb::Rollback(ask) => run::rollback(&session, &ask, out).await,
        Verb::Abort(ask) => run::abort(&session, &ask, out).await,
        Verb::Pause(ask) => run::pause(&session, &ask, out).await,
        Verb::Promote(ask) => run::promote(&session, &ask, out).await,
        Verb::Resume(resume) => run::resume(&session, &resume, out).await,
        Verb::History { environment, limit } => run::history(&session, &environment, limit, out).await,
        Verb::Traffic { verb: args::TrafficVerb::Show { environment } } => {
            run::traffic(&session, &environment, out).await
        }
        Verb::Traffic { verb: args::TrafficVerb::Watch { environment, length } } => {
            run::watch_traffic(&session, &environment, length, out).await
        }
        Verb::Traffic { verb: args::TrafficVerb::Limits { environment, min_rate } } => {
            run::limits(&session, &environment, min_rate, out).await
        }
        Verb::Traffic { verb: args::TrafficVerb::Unblock { environment, address } } => {
            run::unblock(&session, &environment, address, out).await
        }
        Verb::Cert { verb: args::CertVerb::Deploy { environment, file, path, drop_name, yes } } => {
            run::deploy_certificate(&session, &environment, &file, path, &drop_name, yes, out).await
        }
        Verb::Cert { verb: args::CertVerb::Show { environment } } => {
            run::certificates(&session, &environment, out).await
        }
        Verb::Check(check) => run::check(&session, &check, out).await,
        Verb::Checklist(checklist) => run::checklist(&session, &checklist, out).await,
        Verb::Db { verb } => run::database(&session, &verb, out).await,
        Verb::Maintenance { verb } => run::maintenance(&session, &verb, out).await,
        Verb::Audit { verb: args::AuditVerb::Accept { environment, confirm } } => {
            run::accept(&session, &environment, &confirm, out).await
        }
        Verb::Audit { verb: args::AuditVerb::Verify { environment } } => {
            run::verify(&session, &environment, out).await
        }
        Verb::Config { verb: ConfigVerb::Check { environment } } => {
            run::config_check(&session, &environment, out).await
        }
        Verb::Doctor(doctor) => run::doctor(&session, &doctor, out).await,
    }
}
