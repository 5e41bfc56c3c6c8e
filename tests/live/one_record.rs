//! One environment's record contradicts itself: that environment stands still and says so, and the other one of the same
//! coordinator goes on.

use kit::{ENVIRONMENT, Site, Subject, refused, uri};
use pointsman_coordinator::journal::JournalStore;
use pointsman_core::ports::Journal as _;
use pointsman_core::{Code, Event, HostName, ReleaseId, Timestamp};
use pointsman_proto::v1;

const OTHER: &str = "staging";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_record_stops_its_own_environment_alone() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();

    let files = site.folder().join("coordinator/environments");
    let text = std::fs::read_to_string(files.join(format!("{ENVIRONMENT}.toml"))).unwrap();
    let other =
        text.replace(&format!("environment = \"{ENVIRONMENT}\""), &format!("environment = \"{OTHER}\""));
    assert_ne!(other, text);
    std::fs::write(files.join(format!("{OTHER}.toml")), other).unwrap();
    {
        let journal = JournalStore::open(&site.journal(), "test").unwrap();
        let (environment, release) = (OTHER.parse().unwrap(), ReleaseId::parse("r1").unwrap());
        let epoch = journal.take_lease(&environment, "test").await.unwrap();
        let fenced = vec![Event::Fenced(HostName::parse("blue").unwrap())];
        journal.append(&environment, epoch, &release, Timestamp(1), fenced).await.unwrap();
    }
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.released("v2").await.unwrap();

    let operator = Subject::named(&[uri(OTHER, "operator", "user", "admin")]);
    let operator = site.authority().issue(&operator, &site.folder().join("other"), &site.ca()).unwrap();
    let mut client = site.client_as(&operator).unwrap();
    let asked = v1::StatusRequest { environment: OTHER.to_owned(), release: String::new() };
    let told = client.api.get_status(asked).await.unwrap().into_inner();
    let trouble = told.trouble.unwrap();
    assert_eq!(trouble.code, Code::JournalCorrupt.as_str(), "{trouble:?}");
    assert!(trouble.message.contains("never planned"), "{trouble:?}");
    let page = v1::SetMaintenanceRequest { environment: OTHER.to_owned(), on: true, ..Default::default() };
    assert_eq!(refused(client.api.set_maintenance(page).await).unwrap().code, Code::JournalCorrupt);
}
