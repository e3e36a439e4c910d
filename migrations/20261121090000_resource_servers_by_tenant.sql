-- With every token request its tenant's resource servers are looked through: those of other tenants must not make that slower.
create index resource_servers_by_tenant on resource_servers (tenant_id);
