"""`blobflow probe` as a program, against registries that are real: what it prints, and that runs take it."""

from __future__ import annotations

from pathlib import Path

from blobflow.config_file import read_config
from tests.e2e.conftest import StartsRegistries
from tools.imageset import Layout, push
from tools.processes import Registry, blobflow, blobflow_serve

# distribution 2.8.2, tried by hand: single PUTs, streams and chunks of any size; no upload outlives a break.
DISTRIBUTION = """\
[registry."{host}".profile]
name = "probed"
rungs = ["single", "stream", "chunked"]
single_bytes = 1048576
bounded = false
chunk_bytes = 1048576
least_chunk_bytes = 16384
ranges = true
mounts = true
keeps_broken_sessions = false
# mounts without `from`: no
# takes indexes whose manifests are absent: no
# has the referrers API: no
# deletes by tag: no
"""
OURS = """\
[registry."{host}".profile]
name = "probed"
rungs = ["single", "stream", "chunked"]
single_bytes = 1048576
bounded = false
chunk_bytes = 1048576
least_chunk_bytes = 16384
ranges = true
mounts = true
keeps_broken_sessions = true
tags_with_digest = true
# mounts without `from`: yes
# takes indexes whose manifests are absent: yes
# has the referrers API: yes
# deletes by tag: yes
"""


def probed(registry: Registry, home: Path, *options: str | Path) -> str:
    done = blobflow("probe", f"{registry.host}/scratch", "--up-to", "1MiB", *options, home=home)
    assert (done.code, done.err) == (0, "")
    return done.out


def test_docker_registry_is_what_it_is_known_to_be(start_registry: StartsRegistries, home: Path) -> None:
    registry = start_registry("target")
    assert probed(registry, home) == DISTRIBUTION.format(host=registry.host)


def test_the_embedded_registry_takes_everything_and_is_left_as_it_was(tmp_path: Path, home: Path) -> None:
    """And what it takes is kept in the file, in place of what that said."""
    config, link = tmp_path / "config.toml", tmp_path / "link.toml"
    link.symlink_to(config)
    with blobflow_serve(tmp_path / "ours") as registry:
        before = f'# mine\n[registry."{registry.host}"]\nhttp = true\n'
        config.write_text(f'{before}profile = "ecr"\n')
        config.chmod(0o600)
        said = probed(registry, home, "--config", link, "--save")
        assert said == f"the profile of {registry.host} is kept in {link}\n"
        assert config.read_text() == f"{before}\n{OURS.format(host=registry.host)}"
        assert (config.stat().st_mode & 0o777, link.is_symlink()) == (0o600, True)
        assert registry.ask("GET", "/v2/_catalog")[2] == b'{"repositories":[]}'


def test_a_run_takes_what_a_probe_printed(
    start_registry: StartsRegistries, small_set: Layout, tmp_path: Path, home: Path
) -> None:
    source, target = start_registry("source"), start_registry("target")
    push(small_set.path, source.host)
    config = tmp_path / "config.toml"
    config.write_text(probed(target, home))
    assert read_config(config)[target.host].profile is not None
    name = next(iter(small_set.images))
    done = blobflow("copy", f"{source.host}/{name}", f"{target.host}/{name}", "--config", config, home=home)
    assert done.code == 0, done.err
    repository, _, tag = name.rpartition(":")
    assert target.digest_of(repository, tag) == source.digest_of(repository, tag)


def test_a_place_that_can_t_be_probed_is_told_in_a_sentence(home: Path) -> None:
    nobody = blobflow("probe", "127.0.0.1:1/scratch", home=home)
    assert (nobody.code, nobody.out) == (4, "")
    assert nobody.err.startswith("blobflow: can't connect to 127.0.0.1:1")
    assert blobflow("probe", "127.0.0.1:1", "--up-to", "much", home=home).code == 2
    assert blobflow("probe", "127.0.0.1:1", "--up-to", "5", home=home).code == 2
    assert blobflow("probe", "127.0.0.1:1/UPPER", home=home).code == 2
