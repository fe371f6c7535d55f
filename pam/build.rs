//! Links the module so that it is never unloaded. Otherwise libpam could unload the module at the
//! end of a transaction, and code of the module that runs later, such as the destructor of a
//! thread-local variable, could crash the application.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
