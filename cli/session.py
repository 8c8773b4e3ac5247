"""What all commands share: the cluster that is meant, the namespaces, the form of the output, and the exit statuses."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from cli.output import FORMATS, TABLE, Output
from edgefarm import names
from edgefarm.errors import EdgefarmError, InvalidName, InvalidResource, Refused, SettingsError, Unavailable

if TYPE_CHECKING:
    from cli.kube import Kube

#: Exit statuses, beside 0.
UNHEALTHY: Final = 1
MISUSED: Final = 2
UNREACHABLE: Final = 3

#: Settings of every command and group; help is as wide as the tables.
CONTEXT_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True)
class Session:
    """One call of `edgefarm`, as its options say."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    kubeconfig: str | None = None
    context: str | None = None
    chosen_namespace: str | None = None
    controller_namespace: str = names.CONTROLLER_NAMESPACE
    form: str = TABLE

    @cached_property
    def kube(self) -> Kube:
        """The cluster; KubernetesUnavailable when nothing says which one."""
        from cli.kube import Kube  # it costs a third of a second, which `--help` need not pay
        from cli.kubeconfig import Wanted

        return Kube.open(Wanted(self.environ, self.kubeconfig, self.context))

    @property
    def home(self) -> Path:
        """The user's home folder."""
        return Path(self.environ.get("HOME") or Path.home())

    @property
    def namespace(self) -> str:
        """The workload namespace: `--namespace`, else that of the kubeconfig's context, else `default`."""
        return self.chosen_namespace or self.kube.namespace

    @cached_property
    def output(self) -> Output:
        """Where results go, in the form that was asked for."""
        return Output(self.form)


class RootGroup(TyperGroup):
    """The command line itself: an error of ours becomes one line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the only place where errors end."""
        try:
            return super().invoke(ctx)
        except EdgefarmError as error:
            typer.echo(f"edgefarm: {str(error).rstrip('. ')}", err=True)
            raise typer.Exit(status_of(error)) from error


def status_of(error: EdgefarmError) -> int:
    """The exit status that an error means; what was asked about and does not exist is wrong itself."""
    if isinstance(error, Refused) and error.status == HTTPStatus.NOT_FOUND:
        return UNHEALTHY
    if isinstance(error, Unavailable | Refused):
        return UNREACHABLE
    return MISUSED if isinstance(error, SettingsError | InvalidName | InvalidResource) else UNHEALTHY


def examples(*lines: str) -> str:
    """The end of a command's help, which shows how it is used; the `epilog` of `app.command`."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])


def _known_form(value: str | None) -> str | None:
    if value is not None and value not in FORMATS:
        raise typer.BadParameter(f"{value!r} is not known: write {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return value


#: The options of the session by the attribute that they set. They may stand before or after the command.
_OPTIONS: Final[dict[str, Any]] = {
    "chosen_namespace": typer.Option(
        "--namespace", "-n", metavar="NAME", help="The workload namespace. Default: the context's."
    ),
    "controller_namespace": typer.Option(
        "--controller-namespace",
        metavar="NAME",
        help=f"Where edgefarm-network is installed. Default: {names.CONTROLLER_NAMESPACE}.",
    ),
    "form": typer.Option(
        "--output",
        "-o",
        metavar="|".join(FORMATS),
        help=f"The form of the output. Default: {TABLE}.",
        callback=_known_form,
        autocompletion=lambda: list(FORMATS),
    ),
    "kubeconfig": typer.Option("--kubeconfig", metavar="FILE", help="Default: as kubectl finds it."),
    "context": typer.Option("--context", metavar="NAME", help="The kubeconfig's context. Default: the current one."),
}


def with_session(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function whose first parameter is the Session: the command has the session's options instead.

    Write it below `@app.command(...)`.
    """

    def command(ctx: typer.Context, **given: Any) -> None:
        chosen = {name: given.pop(name) for name in _OPTIONS}
        session = ctx.obj if isinstance(ctx.obj, Session) else Session()
        ctx.obj = replace(session, **{name: value for name, value in chosen.items() if value is not None})
        function(ctx.obj, **given)

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(
            inspect.Parameter(name, keyword, default=None, annotation=Annotated[str | None, option])
            for name, option in _OPTIONS.items()
        ),
    ]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command
