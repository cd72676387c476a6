"""The documentation mentions every script, and only files that exist."""

import re

import pytest

DOCUMENTS = ("README.md", "INSTALL.md", "DATASET.md", "data/README.md")
FOLDERS = "tools|scripts|configs|lib|process_data|tests"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_mentioned_in_a_document_exist(repo, document):
    text = (repo / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (repo / document).parent.joinpath(link).exists()]
    paths = re.findall(rf"(?<![\w/.])(?:{FOLDERS})/[\w/.-]+\.(?:py|sh|yaml)\b", text)
    missing += [path for path in paths if not (repo / path).exists() and path != "configs/F.yaml"]
    assert missing == []
    assert links or paths


def test_readme_mentions_every_script_and_tool(repo):
    text = (repo / "README.md").read_text()
    names = [path.name for path in [*repo.glob("scripts/run_*.sh"), *repo.glob("tools/[a-z]*.py")]]
    assert len(names) > 16
    assert [name for name in names if name not in text] == []


def test_readme_and_dataset_page_mention_every_kinetics_script(repo):
    text = "".join((repo / name).read_text() for name in ("README.md", "DATASET.md"))
    names = [path.name for path in repo.glob("process_data/kinetics/[a-z]*.*")]
    assert [name for name in names if name not in text] == []
