-- Clear, mark, and commands that are worked off in several commits.
-- Locks: ACCESS EXCLUSIVE on task_instance and command, for the moment of adding columns without rewriting anything.
-- Duration: milliseconds.
-- Compat: yes (an older release leaves the new columns as they are).

alter table task_instance add tries_cleared int not null default 0;
comment on column task_instance.tries_cleared is 'its try_number when it was last cleared: retries count from there';

alter table command
    add cursor jsonb,
    add actor text;
comment on column command.cursor is 'how far a command has come that takes several commits, and what it has done';
comment on column command.actor is 'on whose behalf the daemon wrote it; NULL: requested_by wrote it';
