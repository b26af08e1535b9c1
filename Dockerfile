# The application without the servers: web, worker, beat and migrate are this image with another command.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VAR_DIR=/srv/tallybook/var

WORKDIR /srv/tallybook

# First what changes seldom: a new line of code does not install everything again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt .

RUN useradd --system --no-create-home --shell /usr/sbin/nologin tallybook \
    && install --directory --owner tallybook --group tallybook var \
    && install --directory --owner tallybook --group tallybook --mode 700 var/uploads
COPY . .
USER tallybook

# The values only let the settings load; nothing of them stays in the image.
RUN SECRET_KEY=build DATABASE_URL=postgres://build/build python manage.py collectstatic --no-input --verbosity 0

EXPOSE 8000
# exec form: the server is process 1 and gets the signals itself.
CMD ["python", "-m", "granian", "--interface", "wsgi", "config.wsgi:application", "--host", "0.0.0.0", "--port", "8000", \
     "--workers", "2", "--blocking-threads", "4", "--workers-kill-timeout", "20s", "--http1-header-read-timeout", "10000"]
