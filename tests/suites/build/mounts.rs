//! RUN --mount and --network.

use pellicle_tests::Who;

use crate::support::Site;

#[test]
fn caches_stay_from_build_to_build_and_are_in_no_layer() {
    for who in Who::all() {
        let b = Site::new(who);
        let text = |n: u32| {
            format!(
                "FROM tools\nRUN --mount=type=cache,target=/cache echo cached-{n} >>/cache/log; cat /cache/log >/seen\n"
            )
        };
        b.built(&text(1), &[]);
        b.built(&text(2), &[]);
        assert_eq!(
            b.says("cat /seen; ls -d /cache 2>&1 | head -c 2"),
            "cached-1\ncached-2\nls"
        );
        // Another name is another cache, and the same name elsewhere the same one.
        b.built(
            "FROM tools\nRUN --mount=type=cache,id=other,target=/cache ls /cache >/seen\n\
             RUN --mount=type=cache,id=/cache,target=/c2,ro cat /c2/log >>/seen; ! touch /c2/x\n",
            &[],
        );
        assert_eq!(b.says("cat /seen"), "cached-1\ncached-2");
    }
}

#[test]
fn secrets_are_seen_by_one_run_and_stay_nowhere() {
    for who in Who::all() {
        let b = Site::new(who);
        let value = "a-value-that-is-nowhere-else";
        let file = b.s.file("secret", value);
        let arg = format!("id=key,src={}", file.display());
        let _ = b.build(
            "FROM tools\n\
             RUN --mount=type=secret,id=key test $(cat /run/secrets/key | wc -c) = 28 && stat -c %a /run/secrets/key >/mode\n\
             RUN --mount=type=secret,id=key,target=/root/k,mode=0444 stat -c %a /root/k >>/mode\n\
             RUN --mount=type=secret,id=envkey,env=KEY echo ${#KEY} >>/mode\n\
             RUN ls /run/secrets/key /root/k >>/mode 2>/dev/null; true\n\
             RUN --mount=type=secret,id=none ls /run/secrets 2>/dev/null >>/mode; true\n",
            &["-t", "x", "--secret", &arg, "--secret", "id=envkey,env=SECRET"],
        )
        .env("SECRET", "another-value-that-is-nowhere-else")
        .run()
        .succeeded();
        assert_eq!(b.says("cat /mode"), "400\n444\n34");
        assert_eq!(
            b.store_has("value-that-is-nowhere-else"),
            Vec::<String>::new()
        );
        b.build(
            "FROM tools\nRUN --mount=type=secret,id=key,required=true true\n",
            &["-t", "y"],
        )
        .run()
        .failed_clearly(1, &["Containerfile:2", "key", "--secret"]);
    }
}

#[test]
fn binds_show_files_of_the_context_and_of_stages_and_lose_what_is_written() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file("src/a", "from the context\n").file("hidden", "h");
        let text = "FROM tools AS build\nRUN mkdir /o && echo from a stage >/o/f\n\
                    FROM tools\n\
                    RUN --mount=type=bind,source=src,target=/m cat /m/a >/seen; ! touch /m/x\n\
                    RUN --mount=target=/m,rw --mount=from=build,source=/o,target=/n cat /n/f >>/seen; echo x >/m/x; ls /m | grep -c hidden >>/seen; true\n\
                    RUN --mount=from=tools,source=etc/base,target=/base cat /base >>/seen\n\
                    RUN --mount=type=tmpfs,target=/t,size=1m echo x >/t/x\nRUN ls -d /m /n /t /base >>/seen 2>/dev/null; true\n";
        b.built(text, &[]);
        assert_eq!(
            b.says("cat /seen"),
            "from the context\nfrom a stage\n1\nfrom the image"
        );
        assert!(!b.s.path("ctx/x").exists());
        // What is bound counts as what the step depends on.
        assert_eq!(b.built(text, &[]).err().matches("Using cache").count(), 6);
        b.file("src/a", "changed\n");
        b.built(text, &[]);
        assert!(b.says("cat /seen").starts_with("changed"));
        b.file(".dockerignore", "hidden\n");
        b.built(text, &[]);
        assert_eq!(b.says("sed -n 3p /seen"), "0");
        b.build("FROM tools\nRUN --mount=source=../x,target=/m ls\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:2", "../x"]);
    }
}

#[test]
fn run_has_no_network_unless_it_is_given_one() {
    for who in Who::all() {
        let b = Site::new(who);
        b.built(
            "FROM tools\nRUN readlink /proc/self/ns/net >/default\n\
             RUN --network=host readlink /proc/self/ns/net >/host\n\
             RUN --network=none readlink /proc/self/ns/net >/none\n",
            &[],
        );
        let host = std::fs::read_link("/proc/self/ns/net").unwrap();
        let host = host.to_str().unwrap();
        let seen = b.says("cat /host /default /none");
        let seen: Vec<&str> = seen.lines().collect();
        assert_eq!(seen[0], host);
        assert!(seen[1] != host && seen[2] != host, "{seen:?}");
        b.built(
            "FROM tools\nRUN readlink /proc/self/ns/net >/default\n",
            &["--network", "host"],
        );
        assert_eq!(b.says("cat /default"), host);
    }
}
