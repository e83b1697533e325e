//! Peers that die, lie and stall; restarts; values that are given up.

use super::*;

/// A server, and a liar who has the same values.
struct Pair {
    source: Folder,
    target: Folder,
    net: Arc<Net>,
}

impl Pair {
    fn new() -> Self {
        Self { source: Folder::new(), target: Folder::new(), net: Arc::new(Net::default()) }
    }

    fn start(&self, options: FetchOptions) -> Fetcher {
        Fetcher::start(self.target.blobs.clone(), self.net.clone(), options).expect("started")
    }

    /// Fetches a value while one peer does this to what it sends, and another one is honest.
    async fn fetch_beside(
        &self,
        bytes: &Bytes,
        options: FetchOptions,
        change: impl Fn(u64, Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Counters {
        let hash = self.source.put(bytes).await;
        self.net.set(host(1), tampered(self.source.server(), change));
        let fetcher = self.start(options);
        fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
        // The liar is asked first: nobody else is there until something came of it.
        while self.net.bytes_from(host(1)) == 0 {
            tokio::task::yield_now().await;
        }
        self.net.set(host(2), honest(self.source.server()));
        fetcher.handle_peer(&host(2));
        assert!(fetcher.wait(&hash, LONG).await);
        assert!(is_whole(self.target.dir.path(), bytes));
        fetcher.stop().await;
        fetcher.counters()
    }
}

#[tokio::test]
async fn a_peer_that_flips_a_bit_is_found_out_and_the_value_comes_from_another() {
    let pair = Pair::new();
    let bytes = content(1, 5 * MIB);
    let counters = pair.fetch_beside(&bytes, options(), |before, mut piece| {
        if (500_000..510_000).contains(&before) {
            piece[0] ^= 1;
        }
        Some(piece)
    });
    let counters = counters.await;
    assert!(counters.bad >= 1);
    assert_eq!(counters.culprits.keys().collect::<Vec<_>>(), [&host(1)]);
}

#[tokio::test]
async fn what_a_liar_alone_sends_is_never_taken() {
    let pair = Pair::new();
    let bytes = content(1, 400_000);
    let hash = pair.source.put(&bytes).await;
    pair.net.set(
        host(1),
        tampered(pair.source.server(), |before, mut piece| {
            if before < 300_000 && before + piece.len() as u64 > 300_000 {
                piece[0] ^= 1;
            }
            Some(piece)
        }),
    );
    let fetcher = pair.start(options());
    fetcher.want(&place(), hash, 400_000, Urgency::Soon);
    while fetcher.counters().bad == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!fetcher.wait(&hash, Duration::from_millis(20)).await, "it is not asked again");
    assert_eq!(fetcher.counters().bad, 1);
    assert_eq!(fetcher.asked(&hash).into_iter().map(|(peer, _)| peer).collect::<Vec<_>>(), [host(1)]);
    fetcher.stop().await;
    assert!(!target_file(&pair, &hash).exists());
}

fn target_file(pair: &Pair, hash: &BlobHash) -> std::path::PathBuf {
    crate::blobs::file_of(pair.target.dir.path(), hash)
}

#[tokio::test]
async fn a_peer_that_sends_too_much_spoils_nothing() {
    let pair = Pair::new();
    let bytes = content(1, 5 * MIB);
    pair.fetch_beside(&bytes, options(), |_, mut piece| {
        piece.push(0);
        Some(piece)
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_stalls_is_given_up_and_one_that_is_slow_gets_a_second_beside_it() {
    for (idle, endgame_ms) in [(Duration::from_millis(50), 1_000_000), (LONG, 50)] {
        let pair = Pair::new();
        let bytes = content(1, 3 * MIB);
        let mut options = options();
        options.idle = idle;
        options.settings.endgame_ms = endgame_ms;
        let stall = |before, piece| if before > 200_000 { None } else { Some(piece) };
        let counters = pair.fetch_beside(&bytes, options, stall).await;
        assert_eq!(counters.bad, 0, "that is no lie");
    }
}

#[tokio::test]
async fn a_peer_that_drips_is_given_up_after_the_time_of_a_stripe() {
    let pair = Pair::new();
    let hash = pair.source.put(&content(1, MIB)).await;
    let drip: Behaviour = Arc::new(|mut stream| {
        async move {
            stream.write_u8(Status::Follows.byte()).await.ok();
            while stream.write_u8(0).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        .boxed()
    });
    pair.net.set(host(1), drip);
    let mut options = options();
    options.stripe = Duration::from_millis(50);
    options.settings.endgame_ms = 1_000_000;
    let fetcher = pair.start(options);
    fetcher.want(&place(), hash, MIB as u64, Urgency::Soon);
    let asked_again = async {
        // What little came is a lie, but that is found out only when the request has ended.
        while fetcher.counters().bad == 0 && pair.net.opened.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, asked_again).await.expect("the request ends though bytes come");
    fetcher.stop().await;
}

#[tokio::test]
async fn half_from_a_peer_that_dies_and_the_rest_from_another() {
    let pair = Pair::new();
    let bytes = content(1, 10 * MIB);
    let hash = pair.source.put(&bytes).await;
    let (net, is_dead) = (pair.net.clone(), Arc::new(AtomicBool::new(false)));
    let (dead, dying) = (is_dead.clone(), pair.net.clone());
    net.set(
        host(1),
        tampered(pair.source.server(), move |_, piece| {
            if dying.bytes_from(host(1)) > 5 * MIB as u64 {
                dead.store(true, Ordering::SeqCst);
                dying.remove(host(1));
            }
            // What is dead sends nothing any more; the wait for it is short.
            (!dead.load(Ordering::SeqCst)).then_some(piece)
        }),
    );
    let mut options = options();
    options.idle = Duration::from_millis(200);
    let fetcher = pair.start(options);
    fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
    while !is_dead.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    net.set(host(2), honest(pair.source.server()));
    fetcher.handle_peer(&host(2));
    assert!(fetcher.wait(&hash, LONG).await);
    assert!(is_whole(pair.target.dir.path(), &bytes));
    let second = net.bytes_from(host(2));
    assert!(second < 6 * MIB as u64, "what the first brought was kept: {second}");
    fetcher.stop().await;
}

#[tokio::test]
async fn a_wrong_size_does_not_keep_the_right_one_from_coming() {
    let pair = Pair::new();
    let bytes = content(1, 100_000);
    let hash = pair.source.put(&bytes).await;
    pair.net.set(host(1), honest(pair.source.server()));
    let fetcher = pair.start(options());
    for size in [99_999, 100_001, 1 << 40, u64::MAX] {
        fetcher.want(&place(), hash, size, Urgency::Now);
    }
    fetcher.want(&place(), hash, 100_000, Urgency::Soon);
    assert!(fetcher.wait(&hash, LONG).await);
    assert!(is_whole(pair.target.dir.path(), &bytes));
    assert_eq!(fetcher.counters().bad, 0, "an honest peer is not blamed for a wrong size");
    fetcher.stop().await;
}

#[tokio::test]
async fn after_a_restart_it_goes_on_where_it_was() {
    let pair = Pair::new();
    let bytes = content(1, 8 * MIB);
    let hash = pair.source.put(&bytes).await;
    let stall = |before, piece| if before > 2_500_000 { None } else { Some(piece) };
    pair.net.set(host(1), tampered(pair.source.server(), stall));
    let fetcher = pair.start(options());
    fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
    while pair.net.bytes_from(host(1)) < 4_500_000 {
        tokio::task::yield_now().await;
    }
    fetcher.stop().await;
    assert!(!pair.target.blobs.exists(&hash), "not half a value");
    pair.net.remove(host(1));
    pair.net.set(host(2), honest(pair.source.server()));
    let blobs = Blobs::open(pair.target.dir.path()).expect("opened again");
    let fetcher = Fetcher::start(blobs, pair.net.clone(), options()).expect("started again");
    fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
    assert!(fetcher.wait(&hash, LONG).await);
    assert!(is_whole(pair.target.dir.path(), &bytes));
    let again = pair.net.bytes_from(host(2));
    assert!(again < 4 * MIB as u64 + 100_000, "4 MiB were here, and {again} bytes came");
    fetcher.stop().await;
    assert_eq!(left_over(pair.target.dir.path()), [""; 0]);
}

#[tokio::test]
async fn what_was_kept_and_rotted_meanwhile_is_fetched_anew() {
    let pair = Pair::new();
    let bytes = content(1, 4 * MIB);
    let hash = pair.source.put(&bytes).await;
    let stall = |before, piece| if before > 1_500_000 { None } else { Some(piece) };
    pair.net.set(host(1), tampered(pair.source.server(), stall));
    let fetcher = pair.start(options());
    fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
    while pair.net.bytes_from(host(1)) < 2_500_000 {
        tokio::task::yield_now().await;
    }
    fetcher.stop().await;
    let [name, map] = &left_over(pair.target.dir.path())[..] else { panic!("a file and its map") };
    assert_eq!(format!("{name}.map"), *map);
    let path = pair.target.dir.path().join("partial").join(name);
    let mut rotten = std::fs::read(&path).expect("readable");
    rotten[1000] ^= 1;
    std::fs::write(&path, rotten).expect("written");
    pair.net.set(host(1), honest(pair.source.server()));
    let fetcher = pair.start(options());
    fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
    assert!(fetcher.wait(&hash, LONG).await);
    assert!(is_whole(pair.target.dir.path(), &bytes));
    fetcher.stop().await;
}

#[tokio::test]
async fn what_nobody_wants_any_more_leaves_nothing() {
    let pair = Pair::new();
    let bytes = content(1, 4 * MIB);
    let hash = pair.source.put(&bytes).await;
    let stall = |before, piece| if before > 1_500_000 { None } else { Some(piece) };
    pair.net.set(host(1), tampered(pair.source.server(), stall));
    for is_open in [true, false] {
        let fetcher = pair.start(options());
        let before = pair.net.bytes_from(host(1));
        fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
        while pair.net.bytes_from(host(1)) < before + 2_500_000 {
            tokio::task::yield_now().await;
        }
        let fetcher = if is_open {
            fetcher
        } else {
            fetcher.stop().await;
            assert_eq!(left_over(pair.target.dir.path()).len(), 2);
            pair.start(options())
        };
        fetcher.forget(&hash);
        assert_eq!(fetcher.wanted(), 0);
        while !left_over(pair.target.dir.path()).is_empty() {
            tokio::task::yield_now().await;
        }
        fetcher.stop().await;
    }
}

#[tokio::test]
async fn the_sweep_at_the_start_takes_partial_files_of_what_nobody_needs() {
    let target = Folder::new();
    let (kept, swept) = (content(1, 100_000), content(2, 100_000));
    for bytes in [&kept, &swept] {
        let mut partial = target.blobs.partial(BlobHash::of(bytes), 100_000);
        partial.write(0, &bytes[..16_384]).expect("written");
        partial.checkpoint().expect("kept");
    }
    let mut open = target.blobs.partial(BlobHash::of(b"open"), 100_000);
    open.write(0, &kept[..16_384]).expect("written");
    target.blobs.sweep(|hash| *hash == BlobHash::of(&kept)).expect("swept");
    open.checkpoint().expect("its file is there");
    assert_eq!(left_over(target.dir.path()).len(), 4, "it and what is needed");
    open.discard();
    let kept: Vec<_> = target.blobs.partials().expect("listed").into_iter().map(|(hash, _, _)| hash).collect();
    assert_eq!(kept, [BlobHash::of(&content(1, 100_000))]);
}

#[tokio::test]
async fn collection_while_a_value_comes_takes_effect_when_it_is_here() {
    for is_wanted_again in [false, true] {
        let target = Folder::new();
        let bytes = content(1, 20_000);
        let hash = BlobHash::of(&bytes);
        let mut partial = target.blobs.partial(hash, 20_000);
        partial.write(0, &bytes).expect("written");
        assert!(!target.blobs.remove(&hash, || true).expect("asked"), "there is nothing yet");
        if is_wanted_again {
            target.blobs.want(&hash);
        }
        let placed = partial.finish();
        assert_eq!(placed.is_ok(), is_wanted_again);
        drop(placed);
        // Giving a lease back is left to a thread.
        while !target.blobs.hold(&hash).is_some_and(|staged| {
            staged.keep();
            true
        }) && is_wanted_again
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(target.blobs.exists(&hash), is_wanted_again);
        assert_eq!(left_over(target.dir.path()), [""; 0]);
    }
}

#[tokio::test]
async fn a_finished_file_outlives_a_removal_that_was_undone_and_not_one_that_was_not() {
    let target = Folder::new();
    let bytes = content(1, 20_000);
    let hash = BlobHash::of(&bytes);
    let mut partial = target.blobs.partial(hash, 20_000);
    partial.write(0, &bytes).expect("written");
    let staged = partial.finish().expect("placed");
    assert!(!target.blobs.remove(&hash, || true).expect("asked"), "it is leased");
    assert!(target.blobs.exists(&hash));
    drop(staged);
    while target.blobs.exists(&hash) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_disk_only_puts_it_off() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = crate::disk::cut::CutDisk::new(dir.path()).expect("a disk");
    let blob_options = BlobOptions { disk: Arc::new(disk.clone()), ..BlobOptions::default() };
    let blobs = Blobs::open_with(dir.path(), blob_options).expect("opened");
    let trouble = |capacity_bytes| crate::disk::cut::Trouble { capacity_bytes, ..Default::default() };
    disk.set_trouble(trouble(Some(1)));
    let (source, net) = (Folder::new(), Arc::new(Net::default()));
    net.set(host(1), honest(source.server()));
    let bytes = content(1, 2 * MIB);
    let hash = source.put(&bytes).await;
    let fetcher = Fetcher::start(blobs, net.clone(), options()).expect("started");
    fetcher.want(&place(), hash, bytes.len() as u64, Urgency::Soon);
    while net.bytes_from(host(1)) < 3 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(left_over(dir.path()), [""; 0], "nothing was written");
    disk.set_trouble(trouble(None));
    assert!(fetcher.wait(&hash, LONG).await);
    assert!(is_whole(dir.path(), &bytes));
    fetcher.stop().await;
}

#[tokio::test]
async fn a_map_that_is_damaged_anywhere_is_not_believed() {
    let target = Folder::new();
    let bytes = content(1, 100_000);
    let hash = BlobHash::of(&bytes);
    let mut partial = target.blobs.partial(hash, 100_000);
    partial.write(0, &bytes[..16_384]).expect("written");
    partial.checkpoint().expect("kept");
    drop(partial);
    let [_, map] = &left_over(target.dir.path())[..] else { panic!("a file and its map") };
    let path = target.dir.path().join("partial").join(map);
    let good = std::fs::read(&path).expect("readable");
    assert!(!target.blobs.partial(hash, 100_000).verified().is_empty());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).expect("written");
        assert!(target.blobs.partial(hash, 100_000).verified().is_empty(), "byte {at}");
    }
    assert!(target.blobs.partials().expect("listed").is_empty());
    assert_eq!(left_over(target.dir.path()), [""; 0], "what cannot be gone on with goes");
}
