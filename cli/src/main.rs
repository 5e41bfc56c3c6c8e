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

use crate::args::{Arguments, Verb};
use crate::exit::Exit;
use crate::out::Out;

fn main() -> std::process::ExitCode {
    pointsman_chassis::tls::install_crypto();
    let arguments = Arguments::parse();
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

async fn run(arguments: Arguments, out: &Out) -> Result<Exit, Problem> {
    use crate::commands as run;
    let session = client::Session::new(arguments.config);
    match arguments.verb {
        Verb::Init(init) => init::init(&init, out),
        Verb::Explain { code } => run::explain(&code, out),
        Verb::Plan(plan) => run::plan(&session, &plan, out).await,
        Verb::Deploy(deploy) => run::deploy(&session, &deploy, out).await,
        Verb::Status(status) => run::status(&session, &status, out).await,
        Verb::Rollback(ask) => run::rollback(&session, &ask, out).await,
        Verb::Abort(ask) => run::abort(&session, &ask, out).await,
        Verb::Resume(resume) => run::resume(&session, &resume, out).await,
        Verb::History { environment, limit } => run::history(&session, &environment, limit, out).await,
        Verb::Traffic { verb: args::TrafficVerb::Show { environment } } => {
            run::traffic(&session, &environment, out).await
        }
        Verb::Maintenance { verb } => run::maintenance(&session, &verb, out).await,
        Verb::Doctor { environment } => run::doctor(&session, &environment, out).await,
    }
}
