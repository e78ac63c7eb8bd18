//! `waybill-bench`: arguments in, exit code out. Everything else is in the library.

fn main() -> std::process::ExitCode {
    waybill_bench::cli::main()
}
