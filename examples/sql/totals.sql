-- Rendered when the task runs; names come from the run (ds, params, macros) and from the DAG (user_defined_macros).
select region, sum(amount) as total
from {{ table(params.table) }}
where day between '{{ macros.ds_add(ds, -params.days) }}' and '{{ ds }}'
{%- if params.regions %}
  and region in ({{ params.regions | map('quoted') | join(', ') }})
{%- endif %}
group by region;
