"""The API's description (OpenAPI 3.1), derived from the fields that are parsed."""

import functools
from typing import Any, NamedTuple, get_type_hints

import msgspec

from tokret import __version__
from tokret.search.service import answers
from tokret.search.service.answers import (
    AddAnswer,
    AddForm,
    AttentionAnswer,
    AttentionForm,
    BrowseAnswer,
    BrowseForm,
    Error,
    FiltersAnswer,
    Health,
    ImageForm,
    PhotoAnswer,
    RemoveAnswer,
    SearchAnswer,
    SearchForm,
)

REFERENCES = "#/components/schemas/{name}"
REASONS = {
    400: "A field is missing, unknown or out of range.",
    401: "The token is missing or wrong.",
    403: "Another host, another origin, or the service is read-only.",
    404: "There is no such photo, or its file was changed or moved.",
    408: "The request took too long.",
    409: "It is the last photo of the index.",
    413: "The request or a part of it is too large.",
    415: "The request is not multipart/form-data.",
    422: "A photo cannot be decoded within the limits.",
    429: "Too many requests at once; Retry-After has the seconds to wait.",
    503: "The service is loading or stopping.",
    507: "The photo cannot be saved.",
}
UPLOAD = (400, 408, 413, 415, 422, 429)


class Operation(NamedTuple):
    """A method of a route."""

    method: str
    path: str
    summary: str
    answer: Any  # a struct, or the media type of another
    form: Any = None  # of a multipart body
    files: tuple[tuple[str, str], ...] = ()  # its files, each with a description
    query: Any = None  # of the URL
    problems: tuple[int, ...] = ()
    status: int = 200


OPERATIONS = (
    Operation("get", "/", "The page.", "text/html"),
    Operation("get", "/static/{name}", "A file of the page.", "*/*", problems=(404,)),
    Operation("get", "/login", "The form for the token.", "text/html"),
    Operation(
        "post",
        "/login",
        "Keeps the token in a cookie, for the page.",
        "text/html",
        form=answers.LoginForm,
        problems=(401, *UPLOAD),
        status=303,
    ),
    Operation("get", "/openapi.json", "This description.", "application/json"),
    Operation(
        "get", "/healthz", "Whether the service answers.", Health, problems=(503,)
    ),
    Operation("get", "/metrics", "Measurements, for Prometheus.", "text/plain"),
    Operation(
        "post",
        "/search",
        "Searches for photos like some, and unlike others.",
        SearchAnswer,
        form=SearchForm,
        files=(
            ("photo", "Photos to resemble."),
            ("unlike_photo", "Photos not to resemble."),
        ),
        problems=(404, 503, *UPLOAD),
    ),
    Operation(
        "get",
        "/photos",
        "Lists photos by name.",
        BrowseAnswer,
        query=BrowseForm,
        problems=(400, 503),
    ),
    Operation(
        "post",
        "/photos",
        "Saves photos below the index's root, and adds them to the index.",
        AddAnswer,
        form=AddForm,
        files=(("photo", "Photos to add."),),
        problems=(503, 507, *UPLOAD),
        status=201,
    ),
    Operation(
        "get",
        "/photos/{id}",
        "What is known of a photo.",
        PhotoAnswer,
        problems=(404, 503),
    ),
    Operation(
        "delete",
        "/photos/{id}",
        "Removes a photo from the index; its files are kept.",
        RemoveAnswer,
        problems=(404, 409, 503),
    ),
    Operation(
        "get",
        "/photos/{id}/image",
        "A picture of a photo: upright, without metadata.",
        "image/webp",
        query=ImageForm,
        problems=(400, 404, 422, 429, 503),
    ),
    Operation(
        "get",
        "/photos/{id}/attention",
        "Where each token of the model looks.",
        AttentionAnswer,
        query=AttentionForm,
        problems=(400, 404, 422, 429, 503),
    ),
    Operation(
        "get", "/filters", "The folders and labels.", FiltersAnswer, problems=(503,)
    ),
)
PARAMETERS = {"id": answers.Id, "name": str}


@functools.cache
def description() -> bytes:
    """The description as JSON."""
    kinds = [Error, *(o.answer for o in OPERATIONS if not isinstance(o.answer, str))]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REFERENCES)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "Search in an index of photos",
            "version": __version__,
            "description": "Errors are JSON: one line, and the field of the form.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "TOKRET_TOKEN, where the service has one.",
                }
            },
        },
        "security": [{}, {"token": []}],
    }
    return msgspec.json.encode(whole)


def _operation(operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": operation.summary}
    if isinstance(operation.answer, str):
        answer["content"] = {operation.answer: {}}
    else:
        answer["content"] = {
            "application/json": {"schema": _reference(operation.answer)}
        }
    error = {"application/json": {"schema": _reference(Error)}}
    problems = {
        str(status): {"description": REASONS[status], "content": error}
        for status in sorted({401, 403, *operation.problems})
    }
    found: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": {str(operation.status): answer} | problems,
    }
    if operation.form:
        found["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": _form_schema(operation)}},
        }
    return found


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": REFERENCES.format(name=kind.__name__)}


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": msgspec.json.schema(kind),
            "description": "A photo's id." if name == "id" else "A file's name.",
        }
        for name, kind in PARAMETERS.items()
        if f"{{{name}}}" in operation.path
    ]
    if operation.query:
        for name, schema in _fields(operation.query).items():
            found.append(
                {
                    "name": name,
                    "in": "query",
                    "schema": schema,
                    "description": schema.get("description", ""),
                }
            )
    return found


def _fields(form: type) -> dict[str, Any]:
    """The schemas of a form's fields, by name."""
    hints = get_type_hints(form, include_extras=True)
    defaults = {f.name: f.default for f in msgspec.structs.fields(form)}
    return {
        name: msgspec.json.schema(kind)
        | (
            {}
            if defaults[name] in (None, msgspec.NODEFAULT)
            else {"default": defaults[name]}
        )
        for name, kind in hints.items()
    }


def _form_schema(operation: Operation) -> dict[str, Any]:
    files = {
        name: {
            "type": "array",
            "description": text,
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
        }
        for name, text in operation.files
    }
    return {
        "type": "object",
        "properties": files | _fields(operation.form),
        "additionalProperties": False,
    }
