from tokret.errors import UserError, exit_status


def fail(error):
    def program():
        raise error

    return program


def test_statuses(capsys):
    assert exit_status(lambda: None) == 0
    assert exit_status(fail(UserError("a file:\n  is missing"))) == 2
    assert capsys.readouterr().err == "error: a file: is missing\n"
    assert exit_status(fail(KeyboardInterrupt())) == 130
