"""python -m rehearsal.gateway"""

from rehearsal.gateway.proxy import NoEnvoy, main

if __name__ == "__main__":
    try:
        main()
    except NoEnvoy as problem:
        raise SystemExit(f"error: {problem}") from None
