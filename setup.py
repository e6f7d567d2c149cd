"""Package map, dependency lists and extras of ntmd."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    'python-pytun>=2.4.1; sys_platform == "linux" and platform_machine == "x86_64"',
    "pyroute2>=0.9.5,<0.10",
    "cryptography>=48",
    "click>=8.3.1",
    "msgspec>=0.20,<1",
    "dnspython>=2.8",
    'jeepney>=0.9; sys_platform == "linux"',
    'miniupnpc>=2.3; sys_platform == "linux"',
]
SERVER = [
    "starlette>=1.2",
    "uvicorn>=0.40",
    "sqlalchemy>=2.1",
    "alembic>=1.17",
    "prometheus-client>=0.23",
]
TOOLS = ["scapy>=2.7"]
NETIFACES = ["netifaces-plus>=0.12.5"]
DEV = [
    "pytest>=9",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.8",
    "hypothesis>=6.148",
    "coverage>=7.12",
    "ruff>=0.14",
    "mypy>=1.19",
    "import-linter>=2.6",
    "pg8000>=1.31",
    "websockets>=15",
]

setup(
    name="ntmd",
    version="0.1.0",
    description="Connections that survive every move: NTMobile in user space",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[
        *find_packages(".", include=["ntmd", "ntmd.*"]),
        *find_packages("servers"),
    ],
    package_dir={
        "ntmd": "ntmd",
        **{name: f"servers/{name}" for name in ("ntm_as", "ntm_dc", "ntm_rs", "ntm_server")},
    },
    package_data={"ntm_as": ["migrations/*.py", "migrations/*.mako", "migrations/versions/*.py"]},
    install_requires=CORE + SERVER,
    extras_require={"tools": TOOLS, "netifaces": NETIFACES, "dev": DEV},
    entry_points={
        "console_scripts": [
            "ntmd = ntmd.cli.main:main",
            "ntm-server = ntm_server.main:main",
        ]
    },
)
