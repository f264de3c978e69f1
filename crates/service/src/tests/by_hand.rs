use super::Town;
#[tokio::test(flavor = "multi_thread")]
#[ignore]
async fn serve_by_hand() {
    let town = Town::open_with(|s| {
        s.http = ([127, 0, 0, 1], 18080).into();
        s.postgres = ([127, 0, 0, 1], 15433).into();
    })
    .await;
    while !std::path::Path::new("/tmp/stop-service").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    town.running.shutdown().await;
}
