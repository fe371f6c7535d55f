//! Which rule of the process list a program falls under, in lists of three lengths: what a hook
//! layer pays once when its program starts.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vipool::policy::{Executable, PathStyle, Policy, PolicyView, Program};

fn policy(rules: usize) -> Vec<u8> {
    let program = |number: usize| Program {
        pattern: match number % 2 {
            0 => format!("/opt/vendor/application-{number}/bin/server-{number}"),
            _ => format!(r"C:\Program Files\Vendor\Application {number}\Server{number}.exe"),
        },
        ..Program::default()
    };
    Policy { programs: (0..rules).map(program).collect(), ..Policy::default() }.encode()
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("process list");
    for rules in [10, 100, 1000] {
        let bytes = policy(rules);
        // The last rule, so that all are looked at, and a program that is on no list.
        let last = format!("/opt/vendor/application-{0}/bin/server-{0}", rules - 2);
        let windows =
            format!(r"\\?\c:\program files\vendor\application {0}\SERVER{0}.EXE", rules - 1);
        let programs = [
            ("posix", &*last, PathStyle::Posix, true),
            ("windows", &*windows, PathStyle::Windows, true),
            ("not listed", "/usr/bin/python3.13", PathStyle::Posix, false),
        ];
        for (name, path, style, listed) in programs {
            let program =
                Executable { path: path.as_bytes(), invoked_as: None, script: None, style };
            assert_eq!(PolicyView::new(&bytes).find(&program).is_some(), listed);
            group.bench_function(BenchmarkId::new(name, rules), |bencher| {
                bencher.iter(|| PolicyView::new(black_box(&bytes)).find(black_box(&program)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
