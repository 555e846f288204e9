"""The cache of replies: files are whole or absent, and several processes share a folder."""

import logging
import multiprocessing

from rewards.judges.reply_cache import ReplyCache, request_key


def keep_many(folder, reply):
    cache = ReplyCache(folder)
    for number in range(200):
        cache.keep(request_key("/score", {"number": number}), reply)


def test_several_processes_write_and_read_the_same_replies(tmp_path):
    context = multiprocessing.get_context("spawn")
    replies = [{"choices": [str(i) * 5000]} for i in range(3)]
    writers = [context.Process(target=keep_many, args=(str(tmp_path), reply)) for reply in replies]
    for writer in writers:
        writer.start()
    cache, key = ReplyCache(str(tmp_path)), request_key("/score", {"number": 199})
    while any(writer.is_alive() for writer in writers):
        assert cache.find(key) in [None, *replies]
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert cache.find(key) in replies
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]  # no unfinished file is left


def test_a_damaged_file_counts_as_no_reply_and_is_replaced(tmp_path):
    cache, key = ReplyCache(str(tmp_path)), request_key("/score", {})
    cache.keep(key, {"a": 1})
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(b'{"a"')
    assert cache.find(key) is None
    cache.keep(key, {"a": 2})
    assert cache.find(key) == {"a": 2}


def test_a_disk_that_refuses_gives_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = ReplyCache(str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        for key in ("00", "01"):
            cache.keep(key, {})
    assert caplog.text.count("a resumed run asks for them again") == 1


def test_a_disk_that_refuses_still_gives_the_replies_that_it_has(tmp_path):
    cache = ReplyCache(str(tmp_path))
    cache.keep("00", {"a": 1})
    (tmp_path / "01").write_text("in the way")  # of the folder of the next reply
    cache.keep("01", {"a": 2})
    assert cache.find("00") == {"a": 1} and cache.find("01") is None


def test_without_a_folder_nothing_is_kept():
    cache = ReplyCache(None)
    cache.keep("00", {})
    assert cache.find("00") is None


def test_the_key_depends_on_path_and_body():
    keys = {request_key(path, {"text": text}) for path in ("/score", "/classify") for text in ("a", "b")}
    assert len(keys) == 4
