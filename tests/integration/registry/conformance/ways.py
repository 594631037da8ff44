"""The ways in which a blob gets into a repository. Each ends with the answer to the request that finished it."""

from __future__ import annotations

PIECES = 3


def path_of(server, answer):
    """Where the answer's Location leads, on this server."""
    location = answer.headers["Location"]
    assert location, "the answer has no Location"
    return location.removeprefix(f"http://{server.address}")


def with_digest(path, digest):
    return f"{path}{'&' if '?' in path else '?'}digest={digest}"


def begin(server, name):
    """Begin an upload; where it goes on."""
    answer = server.call("POST", f"/v2/{name}/blobs/uploads/", Content_Length="0")
    assert answer.status == 202, answer.body
    return path_of(server, answer)


def post_only(server, name, content, digest):
    return server.call("POST", with_digest(f"/v2/{name}/blobs/uploads/", digest), content,
                       Content_Type="application/octet-stream")


def post_put(server, name, content, digest):
    return server.call("PUT", with_digest(begin(server, name), digest), content,
                       Content_Type="application/octet-stream")


def stream(server, name, content, digest):
    """One PATCH without a length."""
    answer = server.call("PATCH", begin(server, name), iter([content]), Content_Type="application/octet-stream")
    assert answer.status == 202, answer.body
    return server.call("PUT", with_digest(path_of(server, answer), digest), Content_Length="0")


def chunk(server, where, method, content, start, end):
    return server.call(method, where, content[start:end], Content_Type="application/octet-stream",
                       Content_Range=f"{start}-{end - 1}")


def chunked(server, name, content, digest, *, last_by_put=False, out_of_order=False, pieces=PIECES):
    """In pieces with their ranges. `out_of_order`: before each the next one is tried, or the first."""
    where, size = begin(server, name), len(content) // pieces + 1
    for start in range(0, len(content), size):
        end = min(start + size, len(content))
        if out_of_order:
            wrong = end if end < len(content) else 0
            refused = chunk(server, where, "PATCH", content, wrong, min(wrong + size, len(content)))
            assert refused.status == 416, refused.status
            status = server.call("GET", where)
            assert (status.status, status.headers["Range"]) == (204, f"0-{max(start - 1, 0)}")
            where = path_of(server, status)
        if last_by_put and end == len(content):
            return chunk(server, with_digest(where, digest), "PUT", content, start, end)
        answer = chunk(server, where, "PATCH", content, start, end)
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{end - 1}")
        where = path_of(server, answer)
    return server.call("PUT", with_digest(where, digest), Content_Length="0")


def chunked_at_once(server, name, content, digest):
    return chunked(server, name, content, digest, pieces=1)


def chunked_and_put(server, name, content, digest):
    return chunked(server, name, content, digest, last_by_put=True)


def out_of_order(server, name, content, digest):
    return chunked(server, name, content, digest, out_of_order=True)


def out_of_order_and_put(server, name, content, digest):
    return chunked(server, name, content, digest, last_by_put=True, out_of_order=True)


ALL = [post_only, post_put, stream, chunked_at_once, chunked, chunked_and_put, out_of_order, out_of_order_and_put]
